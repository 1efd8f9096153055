"""The section ``train``: the objective and the optimisation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from llm_engineering.configuration.section import NonNegativeInt, PositiveInt, Section, one_of
from llm_engineering.objectives import OBJECTIVES


def _known_objective(value: str) -> str:
    return one_of(value, OBJECTIVES)


ObjectiveName = Annotated[
    str, AfterValidator(_known_objective), Field(json_schema_extra={"enum": list(OBJECTIVES)})
]
"""A name of ``llm_engineering.objectives``."""
Tracker = Literal["mlflow", "wandb", "comet", "tensorboard"]

DEFAULT_EFFECTIVE_BATCH = 16
"""The handbook's: a micro-batch of 2, accumulated 8 times."""


class TrainSettings(Section):
    """The optimisation."""

    objective: ObjectiveName = Field(
        "sft",
        description="What is learned: answers (sft), which of two answers is better (dpo, orpo), "
        "or whether an answer is good (kto).",
    )
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        0.1,
        description="How closely dpo and kto hold to the reference model, or the weight of orpo's "
        "odds-ratio term.",
    )
    start_from: str | None = Field(
        None,
        min_length=1,
        description="Adapter folder, or registered version, to start from; default: a fresh "
        "adapter. It is the reference model of dpo and kto.",
    )
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        3.0, description="Passes over the data."
    )
    max_steps: PositiveInt | None = Field(
        None, description="Stop after so many optimizer steps, whatever epochs says."
    )
    effective_batch: PositiveInt | None = Field(
        None,
        description="Rows in one optimizer step; default: micro_batch x gradient_accumulation where "
        "both are given, else 16.",
    )
    micro_batch: PositiveInt | Literal["auto"] = Field(
        "auto", description="Rows in one forward pass; auto: the fastest that fits the device."
    )
    gradient_accumulation: PositiveInt | None = Field(
        None,
        description="Forward passes in one optimizer step; default: what effective_batch leaves.",
    )
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = Field(
        OBJECTIVES["sft"].learning_rate,
        description="Peak learning rate; default: 3e-4 for sft, 2e-6 for dpo, 8e-6 for orpo, 5e-6 "
        "for kto; auto, for sft: by the model's width and family (planning/learning_rate.py).",
    )
    lr_scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="Course of the learning rate after the warm-up."
    )
    warmup_steps: NonNegativeInt = Field(10, description="Optimizer steps of linear warm-up.")
    optimizer: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw_torch", description="Optimizer; the 8-bit ones need an NVIDIA GPU."
    )
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        0.01, description="Decoupled weight decay."
    )
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="Gradient clipping norm.")
    packing: bool = Field(
        False, description="Pack several rows into one of max_seq_length tokens; needs a GPU."
    )
    gradient_checkpointing: Literal["auto", "tiled", "unsloth", "plain", "none"] = Field(
        "auto",
        description="Recompute activations in the backward pass: offloaded to host memory (unsloth), so "
        "with the feed-forward part in tiles of tokens (tiled, for the longest rows), plain, or not at all; "
        "auto: not at all where that fits the device.",
    )
    trackers: list[Tracker] = Field(
        default_factory=list,
        description="Experiment trackers that get the training's figures too, each by its own "
        "environment variables; ZenML always does.",
    )
    log_every: PositiveInt = Field(1, description="Optimizer steps between logged losses.")
    evaluate_every: PositiveInt | None = Field(
        None, description="Optimizer steps between held-out evaluations; default: start and end."
    )
    early_stopping_patience: PositiveInt | None = Field(
        None,
        description="End after so many held-out evaluations in a row without a lower loss; needs "
        "evaluate_every. Default: never.",
    )
    keep_best: bool = Field(
        False,
        description="Save the weights with the lowest held-out loss, not the last; needs "
        "evaluate_every.",
    )
    neftune_noise_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="Noise on the embeddings in training, in NEFTune's alpha (arXiv 2310.05914, "
        "section 2); for sft. Default: none.",
    )
    checkpoint_every: PositiveInt | None = Field(
        50, description="Optimizer steps between checkpoints; null: none."
    )
    keep_checkpoints: PositiveInt = Field(
        2,
        description="Newest checkpoints kept while training; one more until the newest is complete.",
    )

    @property
    def validates(self) -> bool:
        """Whether held-out rows decide which weights are kept, or when training ends."""
        return self.keep_best or self.early_stopping_patience is not None

    @model_validator(mode="after")
    def _evaluated_in_between(self) -> TrainSettings:
        if self.evaluate_every is None and (self.keep_best or self.early_stopping_patience):
            key = "keep_best" if self.keep_best else "early_stopping_patience"
            raise ValueError(
                f"{key} looks at the held-out loss while training: set evaluate_every too"
            )
        return self

    @property
    def peak_learning_rate(self) -> float:
        """``learning_rate``, once it is a number.

        Raises:
            ValueError: It is still auto; planning.learning_rate chooses the number.
        """
        if self.learning_rate == "auto":
            raise ValueError("train.learning_rate: auto was not chosen yet")
        return self.learning_rate

    @model_validator(mode="after")
    def _fitted_rate(self) -> TrainSettings:
        if self.learning_rate == "auto" and self.objective != "sft":
            default = OBJECTIVES[self.objective].learning_rate
            raise ValueError(
                f"learning_rate: auto is a fit of supervised trainings, and objective is "
                f"{self.objective}; leave it out ({default:g}), or give a number"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _own_learning_rate(cls, values: Any) -> Any:
        if isinstance(values, dict) and "learning_rate" not in values:
            objective = OBJECTIVES.get(str(values.get("objective", "sft")))
            if objective is not None:
                return {**values, "learning_rate": objective.learning_rate}
        return values

    @property
    def rows_in_step(self) -> int:
        """Rows in one optimizer step."""
        if self.effective_batch is not None:
            return self.effective_batch
        if self.micro_batch != "auto" and self.gradient_accumulation is not None:
            return self.micro_batch * self.gradient_accumulation
        return DEFAULT_EFFECTIVE_BATCH

    @model_validator(mode="after")
    def _rows_divide(self) -> TrainSettings:
        rows, accumulation = self.rows_in_step, self.gradient_accumulation
        micro_batch = None if self.micro_batch == "auto" else self.micro_batch
        if micro_batch and accumulation and micro_batch * accumulation != rows:
            raise ValueError(
                f"effective_batch ({rows}) is not micro_batch x gradient_accumulation "
                f"({micro_batch} x {accumulation} = {micro_batch * accumulation}); leave one out"
            )
        for name, part in (("micro_batch", micro_batch), ("gradient_accumulation", accumulation)):
            if part and rows % part:
                near = max(1, round(rows / part)) * part
                raise ValueError(
                    f"effective_batch ({rows}) is no multiple of {name} ({part}); the nearest is "
                    f"{near}"
                )
        return self
