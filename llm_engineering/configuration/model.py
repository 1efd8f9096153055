"""The section ``model``: the base model, its chat template, and how its weights are loaded."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from llm_engineering.configuration.section import Section

_SET_BY_US = {
    *("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt"),
    *("continue_final_message", "tokenize", "padding", "truncation", "max_length"),
    *("return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    *("strftime_now", "raise_exception", "bos_token", "eos_token", "pad_token"),
}

Quantisation = Literal["none", "nf4", "fp8"]


class RopeScaling(Section):
    """How rotary positions are stretched for rows longer than the model was made for.

    ``dynamic`` is not among the rules: it depends on each row's length, and the kernels of training
    compute positions once.
    """

    rope_type: Literal["yarn", "linear"] = Field(
        description="Rule: yarn (arXiv 2309.00071), which loses least, or linear interpolation "
        "(arXiv 2306.15595); 'type' is read too."
    )
    factor: float = Field(
        gt=1.0, description="Positions then, by those that the model was made for."
    )
    original_max_position_embeddings: int | None = Field(
        None, description="Those that the model was made for; default: what its config.json says."
    )

    @model_validator(mode="before")
    @classmethod
    def _reads_the_older_name(cls, values: Any) -> Any:
        if isinstance(values, dict) and "type" in values and "rope_type" not in values:
            return {"rope_type" if key == "type" else key: value for key, value in values.items()}
        return values


class ModelSettings(Section):
    """The base model."""

    id: str = Field(
        min_length=1, description="A local folder, or a model id on the Hugging Face Hub."
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit of a Hub model; default: its main branch."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of the frozen weights; auto: bfloat16 on a GPU, float32 on a CPU."
    )
    quantisation: Quantisation = Field(
        "none",
        description="What the frozen projections are rounded to. nf4: half a byte a parameter (QLoRA), "
        "the least memory. fp8: one byte, and products at twice the rate, on GPUs of compute "
        "capability 8.9, 9.0, 10.0 and 12.0. load_in_4bit: true is the old name of nf4.",
    )
    max_seq_length: Annotated[int, Field(ge=16)] = Field(
        2048,
        description="Longest training row, in tokens; longer rows are cut at the end. At most the "
        "positions that the model was made for, or to which model.rope_scaling stretches them.",
    )
    rope_scaling: RopeScaling | None = Field(
        None,
        description="Stretch the model's positions, as {rope_type: yarn, factor: 4}, in training and "
        "for whoever loads the result; default: as the model was made.",
    )
    chat_template: str | None = Field(
        None,
        description="How a conversation becomes text: 'alpaca', 'chatml', or a .jinja file; "
        "default: the template that comes with the tokenizer.",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        {},
        description="Variables of the chat template, as enable_thinking: false or "
        "reasoning_effort: low; in training, in evaluation, and for whoever asks the model later.",
    )
    chat_template_date: datetime.date | None = Field(
        None,
        description="The date that a chat template prints which prints today's; default: that of "
        "the run, which its manifest keeps.",
    )
    eos_token: str | None = Field(
        None,
        min_length=1,
        description="Token that ends an answer, for a base model whose own end is not that of the "
        "chat template, as '<|im_end|>' for chatml; default: the tokenizer's.",
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with a Hub model. Off unless you read it."
    )

    @model_validator(mode="before")
    @classmethod
    def _old_name(cls, values: Any) -> Any:
        """Read ``load_in_4bit``, under which NF4 was asked for when there was nothing else."""
        if not isinstance(values, dict) or "load_in_4bit" not in values:
            return values
        values = dict(values)
        asked = values.pop("load_in_4bit")
        if not isinstance(asked, bool):
            raise ValueError(
                f"load_in_4bit ({asked!r}) is true or false, the old name of quantisation"
            )
        said = values.get("quantisation")
        if said is not None and asked != (said == "nf4") and (asked or said == "nf4"):
            raise ValueError(
                f"load_in_4bit ({str(asked).lower()}) is the old name of quantisation: nf4, and "
                f"quantisation is {said}; drop load_in_4bit"
            )
        return values | {"quantisation": "nf4"} if asked else values

    @property
    def load_in_4bit(self) -> bool:
        """Whether the projections are NF4."""
        return self.quantisation == "nf4"

    @field_validator("chat_template_kwargs")
    @classmethod
    def _are_variables(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        """What each call sets itself is no variable of the template."""
        for name in kwargs:
            if name in _SET_BY_US:
                raise ValueError(f"{name} is set by this project, not by the configuration")
        return kwargs
