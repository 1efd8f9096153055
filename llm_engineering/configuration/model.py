"""The section ``model``: the base model, its chat template, and how its weights are loaded."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llm_engineering.configuration.section import Section


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
    load_in_4bit: bool = Field(False, description="Quantise the frozen weights to NF4 (QLoRA).")
    max_seq_length: Annotated[int, Field(ge=16)] = Field(
        2048,
        description="Longest training row, in tokens; longer rows are cut at the end. At most the "
        "positions that the model was made for.",
    )
    chat_template: str | None = Field(
        None,
        description="How a conversation becomes text: 'alpaca', 'chatml', or a .jinja file; "
        "default: the template that comes with the tokenizer.",
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with a Hub model. Off unless you read it."
    )
