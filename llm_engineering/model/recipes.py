"""Recipes: what passes between steps instead of a live model."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict, Field

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings, Quantisation, RopeScaling


class Recipe(BaseModel):
    """A small value that says how to build a model again, to the bit."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe itself; equal recipes build equal models."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class ModelRecipe(Recipe):
    """A base model as it was loaded."""

    id: str = Field(description="Folder or Hub id, as configured.")
    revision: str | None = Field(description="Commit of a Hub model.")
    architecture: str = Field(description="Class name in the model's config.json.")
    dtype: str = Field(description="Type of the frozen weights, resolved.")
    quantisation: Quantisation = Field(description="'none', 'nf4' or 'fp8'.")
    max_seq_length: int = Field(description="Tokens.")
    rope_scaling: RopeScaling | None = Field(None, description="As model.rope_scaling.")
    chat_template: str = Field(description="Jinja text of the run's chat template.")
    eos_token: str | None = Field(None, description="As model.eos_token.")
    trainable_tokens: tuple[str, ...] = Field(
        (), description="As lora.trainable_tokens: the tokenizer has each of them."
    )
    stop_ids: tuple[int, ...] = Field(description="Token ids that end an answer.")
    trust_remote_code: bool
    weight_digests: dict[str, str] = Field(description="SHA-256 of each weight file, by name.")
    parameters: int = Field(description="Parameters of the base model, tied ones once.")

    @property
    def settings(self) -> ModelSettings:
        """The settings that load the model; its chat template is the recipe's own."""
        return ModelSettings(
            id=self.id,
            revision=self.revision,
            dtype=self.dtype,
            quantisation=self.quantisation,
            max_seq_length=self.max_seq_length,
            rope_scaling=self.rope_scaling,
            eos_token=self.eos_token,
            trust_remote_code=self.trust_remote_code,
        )


class AdapterTargets(BaseModel):
    """What receives an adapter in one model, as PEFT wants it said; chosen from its modules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: tuple[str, ...] = Field((), description="peft.LoraConfig.target_modules.")
    parameters: tuple[str, ...] = Field((), description="peft.LoraConfig.target_parameters.")
    exclude: str | None = Field(None, description="peft.LoraConfig.exclude_modules.")
    experts: int = Field(0, description="Experts of a layer of a mixture; 0: it is none.")
    token_rows: dict[str, tuple[int, ...]] = Field(
        default_factory=dict,
        description="peft.LoraConfig.trainable_token_indices: the rows that train of the embeddings, and "
        "of an output layer that is not tied to them.",
    )
    frozen_experts: bool = Field(False, description="Whether a mixture's experts are not adapted.")
    left_out: dict[str, str] = Field(
        default_factory=dict, description="Why a projection was left out, by its name."
    )


class MatchedTarget(BaseModel):
    """The adapted modules of one name and shape."""

    name: str = Field(
        description="Last part of the module's name, e.g. q_proj; of a parameter, its module's too: "
        "experts.down_proj."
    )
    modules: int = Field(description="How many carry an adapter.")
    experts: int = Field(1, description="Experts in each of them.")
    d_in: int = Field(description="Input features.")
    d_out: int = Field(description="Output features.")
    adapter_parameters: int = Field(description="Trainable parameters in all of them.")
    rank: int | None = Field(None, description="Rank of their update matrices.")
    scaling: float | None = Field(None, description="Factor on their adapter's output.")


class LoraRecipe(Recipe):
    """A base model with a fresh LoRA adapter in it."""

    model: ModelRecipe
    settings: LoraSettings
    targets: AdapterTargets = AdapterTargets()
    matched: tuple[MatchedTarget, ...]
    trainable_parameters: int
    total_parameters: int = Field(description="Base and adapter parameters.")
    scaling: float = Field(
        description="Factor on the adapter's output: alpha/r or alpha/sqrt(r); with patterns, that of "
        "most modules."
    )

    @property
    def trainable_share(self) -> float:
        """Trainable parameters as a share (0 to 1) of all."""
        return self.trainable_parameters / self.total_parameters
