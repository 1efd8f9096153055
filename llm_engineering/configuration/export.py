"""The section ``export``: what is made of the adapter, beside its own folder."""

from __future__ import annotations

import re
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from llm_engineering.configuration.section import Section

_K_QUANT = re.compile(r"i?q[1-8]_(k(_[sml])?|0|1|xxs|xs|[sm])")
_Gguf = Literal["f16", "bf16", "q8_0", "q5_k_m", "q4_k_m"]


def quantised_by_hand(kind: str) -> str:
    """What to do for a type of GGUF that is not made here, in words that end a sentence."""
    return f"set bf16, then `llama-quantize MODEL-bf16.gguf MODEL-{kind}.gguf {kind.upper()}`"


class ExportSettings(Section):
    """What is made of the adapter, beside its own folder, which every run leaves."""

    merged_16bit: bool = Field(
        False,
        description="Write the base model with the adapter in its weights, in 16 bit; on the CPU, "
        "and in little memory.",
    )
    gguf: _Gguf | None = Field(
        None,
        description="Write the merged model as GGUF of this type too, for llama.cpp and Ollama; needs "
        "`make gguf-converter` and, for a k-quant, `make gguf-quantiser`.",
    )
    hub_repo: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="Hub id, owner/name, that the adapter and its card are pushed to; the token is "
        "taken from the environment. Default: nothing is pushed.",
    )
    hub_merged_repo: str | None = Field(
        None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="Hub id, owner/name, that the merged model is pushed to.",
    )
    hub_private: bool = Field(True, description="Make a new Hub repository private.")

    @field_validator("gguf", mode="before")
    @classmethod
    def _no_k_quant(cls, value: object) -> object:
        if (
            isinstance(value, str)
            and _K_QUANT.fullmatch(value.lower())
            and value not in get_args(_Gguf)
        ):
            raise ValueError(
                f"{value} is not made here; q8_0, q5_k_m and q4_k_m are, and proven. For others "
                f"{quantised_by_hand(value)}"
            )
        return value

    @model_validator(mode="after")
    def _merged_before_pushed(self) -> ExportSettings:
        if self.gguf is not None and not self.merged_16bit:
            raise ValueError("gguf is made of the merged model: set merged_16bit to true")
        if self.hub_merged_repo is not None and not self.merged_16bit:
            raise ValueError("hub_merged_repo needs a merged model: set merged_16bit to true")
        if self.hub_repo is not None and self.hub_repo == self.hub_merged_repo:
            raise ValueError("hub_repo and hub_merged_repo are the same; give each its own")
        return self
