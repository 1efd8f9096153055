"""The section ``lora``: the adapter; names and meaning are PEFT's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from llm_engineering.configuration.section import PositiveInt, Section, Seed, one_of
from llm_engineering.initialisations import INITIALISATIONS

HANDBOOK_TARGET_MODULES = (
    "q_proj",
    "k_proj",
    "v_proj",
    "up_proj",
    "down_proj",
    "o_proj",
    "gate_proj",
)

# PEFT's other initialisations; known, to be refused by name.
_UNKNOWN_INITS = ("olora", "corda", "eva")


def _known_initialisation(value: str) -> str:
    return one_of(value, (*INITIALISATIONS, *_UNKNOWN_INITS))


InitialisationName = Annotated[
    str,
    AfterValidator(_known_initialisation),
    Field(json_schema_extra={"enum": list(INITIALISATIONS)}),
]
"""A name of ``llm_engineering.initialisations``."""


class LoraSettings(Section):
    """The LoRA adapter; names and meaning are PEFT's (``peft.LoraConfig``)."""

    r: PositiveInt = Field(32, description="Rank of the update matrices.")
    lora_alpha: PositiveInt = Field(
        32, description="Numerator of the scaling alpha / r (alpha / sqrt(r) with use_rslora)."
    )
    rank_pattern: dict[str, PositiveInt] = Field(
        default_factory=dict,
        description="Rank of some modules in place of r, by the end of their name or a regular "
        "expression of it, e.g. {down_proj: 64}.",
    )
    alpha_pattern: dict[str, PositiveInt] = Field(
        default_factory=dict, description="Likewise, their numerator in place of lora_alpha."
    )
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Share of the adapter's inputs dropped in training."
    )
    target_modules: list[str] | Literal["auto", "all-linear"] = Field(
        "auto",
        description="What receives an adapter. 'auto': every projection of the text model's layers, "
        "under whatever name the family gives it, and the experts of a mixture, but not its router; "
        "for Llama these are the handbook's seven. 'all-linear': the same without experts. Or names: "
        "the ends of those of linear modules, or of expert parameters (experts.gate_up_proj).",
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r) (arXiv 2312.03732).")
    use_dora: bool = Field(False, description="Learn a magnitude too: DoRA (arXiv 2402.09353).")
    init: InitialisationName = Field(
        "default",
        description="How training starts: with B zero and A PEFT's own (Kaiming-uniform) or gaussian "
        "(normal with standard deviation 1/r); from the weights' principal components (pissa, "
        "arXiv 2404.02948), where the saved adapter has the rank 2r; or, with quantisation: nf4, from what "
        "quantisation took from the weights (loftq, arXiv 2310.08659).",
    )
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Which biases train.")
    trainable_tokens: list[str] = Field(
        default_factory=list,
        description="Tokens whose own rows of the embeddings and of the output layer train too, as PEFT's "
        "trainable_token_indices: for those that the chat template writes and the base model never "
        "learned. One that the tokenizer lacks becomes a special token of it, where the embeddings have "
        "a spare row.",
    )
    random_state: Seed = Field(3407, description="Seed of the adapter's initial weights.")

    @property
    def saved_rank(self) -> int:
        """Rank of the adapter that is saved: ``B A - B0 A0`` has twice that of its parts."""
        return INITIALISATIONS[self.init].rank_factor * self.r

    @field_validator("init")
    @classmethod
    def _initialisation_is_to_be_had(cls, value: str) -> str:
        if value in _UNKNOWN_INITS:
            raise ValueError(
                f"{value} changes the base weights, or looks at data first, so that switching the "
                "adapter off no longer gives the base model, which evaluation and the gate rely on; "
                "choose default, gaussian, pissa or loftq"
            )
        return value

    @model_validator(mode="after")
    def _loftq_adds_to_weights(self) -> LoraSettings:
        if self.init == "loftq" and self.use_dora:
            raise ValueError(
                "use_dora (True) with init: loftq, which corrects the weights, where DoRA scales "
                "them; drop one of them"
            )
        return self

    @model_validator(mode="after")
    def _pissa_can_be_undone(self) -> LoraSettings:
        for key in ("use_dora", "use_rslora", "lora_dropout"):
            if self.init == "pissa" and getattr(self, key):
                raise ValueError(
                    f"{key} ({getattr(self, key)}) with init: pissa, whose adapter is turned into an "
                    "ordinary one afterwards, which would change what it computes; drop one of them"
                )
        return self

    @field_validator("trainable_tokens")
    @classmethod
    def _tokens_are_told_apart(cls, value: list[str]) -> list[str]:
        blank = [token for token in value if not token.strip()]
        if blank:
            raise ValueError(
                f"names {blank[0]!r}, which is no token that can be told from the text"
            )
        _require_named_once(value)
        return value

    @field_validator("target_modules")
    @classmethod
    def _named_once(cls, value: list[str] | str) -> list[str] | str:
        if isinstance(value, str):
            return value
        if not value:
            raise ValueError("is empty: name at least one projection, or say all-linear")
        _require_named_once(value)
        return value


def _require_named_once(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names {', '.join(twice)} twice")
