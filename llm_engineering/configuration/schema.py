"""The schema of a fine-tuning configuration: every key, its unit, its range and its default.

Defaults are the handbook's recipe where it states a value, and otherwise the library's own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy takes no larger one
Share = Annotated[float, Field(ge=0.0, le=1.0)]

HANDBOOK_TARGET_MODULES = (
    "q_proj",
    "k_proj",
    "v_proj",
    "up_proj",
    "down_proj",
    "o_proj",
    "gate_proj",
)


class Section(BaseModel):
    """A section of the configuration file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RunSettings(Section):
    """Where a run writes and what it is called."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="Name of the run and of its folder; default: model, data and the time.",
    )
    output_dir: str = Field(
        "outputs", min_length=1, description="Folder that receives <run name>/."
    )
    seed: Seed = Field(0, description="Seed of the data order, dropout and sampling.")


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
        2048, description="Longest training row, in tokens; longer rows are cut at the end."
    )
    chat_template: str | None = Field(
        None,
        description="How a conversation becomes text: 'alpaca', 'chatml', or a .jinja file; "
        "default: the template that comes with the tokenizer.",
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with a Hub model. Off unless you read it."
    )


class LoraSettings(Section):
    """The LoRA adapter; names and meaning are PEFT's (``peft.LoraConfig``)."""

    r: PositiveInt = Field(32, description="Rank of the update matrices.")
    lora_alpha: PositiveInt = Field(
        32, description="Numerator of the scaling alpha / r (alpha / sqrt(r) with use_rslora)."
    )
    lora_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Share of the adapter's inputs dropped in training."
    )
    target_modules: list[str] | Literal["all-linear"] = Field(
        list(HANDBOOK_TARGET_MODULES),
        description="Names of the projections that receive an adapter, or 'all-linear'.",
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r) (arXiv 2312.03732).")
    use_dora: bool = Field(False, description="Learn a magnitude too: DoRA (arXiv 2402.09353).")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Which biases train.")
    random_state: Seed = Field(3407, description="Seed of the adapter's initial weights.")

    @field_validator("target_modules")
    @classmethod
    def _named_once(cls, value: list[str] | str) -> list[str] | str:
        if isinstance(value, str):
            return value
        if not value:
            raise ValueError("is empty: name at least one projection, or say all-linear")
        twice = sorted({name for name in value if value.count(name) > 1})
        if twice:
            raise ValueError(f"names {', '.join(twice)} twice")
        return value


class DataSource(Section):
    """One source of training rows."""

    source: str = Field(
        min_length=1,
        description="A .jsonl, .json, .csv or .parquet file, or a data set id on the Hub.",
    )
    split: str = Field("train", description="Split of a Hub data set.")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hub data set.")
    max_rows: PositiveInt | None = Field(
        None, description="Use the first so many rows; default: all."
    )


class HeldOutSettings(Section):
    """Rows that are never trained on; the loss on them is what the report compares."""

    source: str | None = Field(None, description="A file, or a Hub data set, of held-out rows.")
    split: str = Field("test", description="Split of a Hub data set named by source.")
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None, description="Share of the training rows to hold out, chosen by the run's seed."
    )
    max_rows: PositiveInt | None = Field(
        None, description="Evaluate on the first so many held-out rows; default: all."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> HeldOutSettings:
        if (self.source is None) == (self.fraction is None):
            raise ValueError("give exactly one of source and fraction")
        return self


class DataSettings(Section):
    """The training data."""

    sources: list[DataSource] = Field(min_length=1, description="Read in this order.")
    held_out: HeldOutSettings = Field(description="Rows kept back for evaluation.")
    on_bad_rows: Literal["error", "skip"] = Field(
        "error", description="Stop at bad rows, or skip them and count them in the report."
    )
    loss_on: Literal["completion", "everything"] = Field(
        "completion", description="Tokens that are trained: the assistant's, or the prompt's too."
    )
    max_truncated_share: Share = Field(
        0.05, description="Largest share of rows that may be cut at model.max_seq_length."
    )


class TrainSettings(Section):
    """The optimisation."""

    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        3.0, description="Passes over the data."
    )
    max_steps: PositiveInt | None = Field(
        None, description="Stop after so many optimizer steps, whatever epochs says."
    )
    micro_batch: PositiveInt = Field(2, description="Rows in one forward pass.")
    gradient_accumulation: PositiveInt = Field(
        8, description="Forward passes in one optimizer step."
    )
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        3e-4, description="Peak learning rate."
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
    gradient_checkpointing: Literal["unsloth", "plain", "none"] = Field(
        "none",
        description="Recompute activations in the backward pass: offloaded to host memory, "
        "plain, or not at all.",
    )
    log_every: PositiveInt = Field(1, description="Optimizer steps between logged losses.")
    evaluate_every: PositiveInt | None = Field(
        None, description="Optimizer steps between held-out evaluations; default: start and end."
    )
    checkpoint_every: PositiveInt | None = Field(
        50, description="Optimizer steps between checkpoints; null: none."
    )
    keep_checkpoints: PositiveInt = Field(2, description="Newest checkpoints kept while training.")


class EvaluateSettings(Section):
    """What is measured beside the training loss."""

    batch_size: PositiveInt = Field(4, description="Rows in one evaluation forward pass.")
    samples: NonNegativeInt = Field(4, description="Held-out prompts answered before and after.")
    max_new_tokens: PositiveInt = Field(64, description="Longest sample answer, in tokens.")


class FinetuningConfig(Section):
    """A whole fine-tuning configuration, as one YAML file states it."""

    run: RunSettings = Field(default_factory=RunSettings)
    model: ModelSettings
    lora: LoraSettings = Field(default_factory=LoraSettings)
    data: DataSettings
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)

    @model_validator(mode="after")
    def _settings_agree(self) -> FinetuningConfig:
        if self.train.max_steps is not None and self.train.warmup_steps >= self.train.max_steps:
            raise ValueError(
                f"train.warmup_steps ({self.train.warmup_steps}) must be less than "
                f"train.max_steps ({self.train.max_steps}): the learning rate would never peak"
            )
        if self.model.load_in_4bit and self.model.dtype == "float32":
            raise ValueError(
                "model.load_in_4bit computes in 16 bit: set model.dtype to auto, bfloat16 or "
                "float16, not float32"
            )
        if self.evaluate.max_new_tokens >= self.model.max_seq_length:
            raise ValueError(
                f"evaluate.max_new_tokens ({self.evaluate.max_new_tokens}) must be less than "
                f"model.max_seq_length ({self.model.max_seq_length})"
            )
        return self
