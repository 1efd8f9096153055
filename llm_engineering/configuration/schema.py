"""The schema of a fine-tuning configuration: every key, its unit, its range and its default.

Defaults are the handbook's recipe where it states a value, and otherwise the library's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from llm_engineering.initialisations import INITIALISATIONS
from llm_engineering.objectives import OBJECTIVES

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # NumPy takes no larger one
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]  # a folder's too
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

    name: Name | None = Field(
        None,
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


# PEFT's other initialisations; known, to be refused by name.
_UNKNOWN_INITS = ("olora", "corda", "eva")


def _one_of(value: str, names: Iterable[str]) -> str:
    """The value, if it is one of the names; else what pydantic says of a ``Literal``."""
    known = [repr(name) for name in names]
    if repr(value) not in known:
        expected = f"{', '.join(known[:-1])} or {known[-1]}"
        raise PydanticKnownError("literal_error", {"expected": expected})
    return value


def _known_initialisation(value: str) -> str:
    return _one_of(value, (*INITIALISATIONS, *_UNKNOWN_INITS))


InitialisationName = Annotated[str, AfterValidator(_known_initialisation)]
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
    target_modules: list[str] | Literal["all-linear"] = Field(
        list(HANDBOOK_TARGET_MODULES),
        description="Names of the projections that receive an adapter, or 'all-linear'.",
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r) (arXiv 2312.03732).")
    use_dora: bool = Field(False, description="Learn a magnitude too: DoRA (arXiv 2402.09353).")
    init: InitialisationName = Field(
        "default",
        description="How training starts: with B zero and A PEFT's own (Kaiming-uniform) or gaussian "
        "(normal with standard deviation 1/r); from the weights' principal components (pissa, "
        "arXiv 2404.02948), where the saved adapter has the rank 2r; or, with load_in_4bit, from what "
        "quantisation took from the weights (loftq, arXiv 2310.08659).",
    )
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Which biases train.")
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


RowForm = Literal["alpaca", "prompt_completion", "messages", "sharegpt", "text"]


class DataSource(Section):
    """One source of training rows."""

    source: str = Field(
        min_length=1,
        description="A .jsonl, .json, .csv (each .gz and .zst too) or .parquet file, a folder or a "
        "glob of them, a URL (s3://, gs://, hf://), zenml://ARTIFACT@VERSION, or a data set id on "
        "the Hub.",
    )
    form: RowForm | None = Field(
        None, description="Form of the rows; default: told by the first row's columns."
    )
    split: str = Field("train", description="Split of a Hub data set.")
    revision: str | None = Field(None, description="Branch, tag or commit of a Hub data set.")
    max_rows: PositiveInt | None = Field(
        None, description="Use the first so many rows; default: all."
    )
    weight: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = Field(
        None,
        description="Share of the rows that come from this source, relative to the others' weights. "
        "No row is repeated: the source with too few rows for its share sets how many are drawn "
        "from the others. Default: every row of every source.",
    )


class HeldOutSettings(Section):
    """Rows that are never trained on; the loss on them is what the report compares."""

    source: str | None = Field(
        None, description="Held-out rows of their own: anything that data.sources may name."
    )
    split: str = Field("test", description="Split of a Hub data set named by source.")
    revision: str | None = Field(None, description="Branch, tag or commit of that data set.")
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="Share of the training rows to hold out, about; a row's text and the run's "
        "seed decide, so that data that grows never moves a trained row here.",
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="Column whose value decides instead of the text (of preferences: the prompt): "
        "rows that share it (an author, a document) stay together.",
    )
    max_rows: PositiveInt | None = Field(
        None, description="Evaluate on the first so many held-out rows; default: all."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> HeldOutSettings:
        if (self.source is None) == (self.fraction is None):
            raise ValueError("give exactly one of source and fraction")
        if self.group is not None and self.fraction is None:
            raise ValueError("group says how a fraction is drawn; drop it, or give a fraction")
        return self


class DataSettings(Section):
    """The training data."""

    sources: list[DataSource] = Field(min_length=1, description="Read in this order.")
    held_out: HeldOutSettings = Field(description="Rows kept back for evaluation.")
    on_bad_rows: Literal["error", "skip"] = Field(
        "error", description="Stop at bad rows, or skip them and count them in the report."
    )
    on_duplicates: Literal["keep", "drop", "error"] = Field(
        "keep",
        description="Training rows that repeat an earlier one: kept, left out, or an error; counted "
        "in the report.",
    )
    on_leaks: Literal["warn", "drop", "error"] = Field(
        "warn",
        description="Training rows whose text (of preferences: whose prompt), but for case and "
        "spaces, is held out too: a warning, left out of training, or an error.",
    )
    on_contradictions: Literal["warn", "drop", "error"] = Field(
        "warn",
        description="Preferences that say the opposite of another training row (the same answers, "
        "the other way round): a warning, both left out, or an error.",
    )
    near_duplicates: Annotated[float, Field(ge=0.5, lt=1.0)] | None = Field(
        None,
        description="Similarity (estimated Jaccard of five-character pieces, MinHash) from which "
        "rows count as repeated or leaked too, e.g. 0.8; default: equal ones alone.",
    )
    loss_on: Literal["completion", "last_turn", "everything"] = Field(
        "completion",
        description="Tokens that are trained: the assistant's, those of its last turn, or the "
        "prompt's too.",
    )
    max_truncated_share: Share = Field(
        0.05, description="Largest share of rows that may be cut at model.max_seq_length."
    )

    @model_validator(mode="after")
    def _all_weighed(self) -> DataSettings:
        weighed = [source.weight is not None for source in self.sources]
        if any(weighed) and not all(weighed):
            raise ValueError(
                f"sources.{weighed.index(False)} has no weight and another has: give every source "
                "one, or none"
            )
        return self


def _known_objective(value: str) -> str:
    return _one_of(value, OBJECTIVES)


ObjectiveName = Annotated[str, AfterValidator(_known_objective)]
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
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        OBJECTIVES["sft"].learning_rate,
        description="Peak learning rate; default: 3e-4 for sft, 2e-6 for dpo, 8e-6 for orpo, 5e-6 "
        "for kto.",
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
    gradient_checkpointing: Literal["auto", "unsloth", "plain", "none"] = Field(
        "auto",
        description="Recompute activations in the backward pass: offloaded to host memory, "
        "plain, or not at all; auto: not at all where that fits the device.",
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
    keep_checkpoints: PositiveInt = Field(2, description="Newest checkpoints kept while training.")

    @model_validator(mode="after")
    def _evaluated_in_between(self) -> TrainSettings:
        if self.evaluate_every is None and (self.keep_best or self.early_stopping_patience):
            key = "keep_best" if self.keep_best else "early_stopping_patience"
            raise ValueError(
                f"{key} looks at the held-out loss while training: set evaluate_every too"
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


class EvaluateSettings(Section):
    """What is measured beside the training loss."""

    batch_size: PositiveInt = Field(4, description="Rows in one evaluation forward pass.")
    samples: NonNegativeInt = Field(4, description="Held-out prompts answered before and after.")
    samples_every: PositiveInt | None = Field(
        None,
        description="Optimizer steps between answers to these prompts while training; default: "
        "none.",
    )
    max_new_tokens: PositiveInt = Field(64, description="Longest sample answer, in tokens.")
    generic_passages: Annotated[int, Field(ge=0, le=60)] = Field(
        60,
        description="Passages of general text on which forgetting is measured, of the 60 that ship "
        "with the project; 0: it is not measured.",
    )
    parity_rows: NonNegativeInt = Field(
        4,
        description="Held-out rows on which every export, read back in a process of its own, must "
        "say what the trained model said; 0: no proof.",
    )


class ExportSettings(Section):
    """What is made of the adapter, beside its own folder, which every run leaves."""

    merged_16bit: bool = Field(
        False,
        description="Write the base model with the adapter in its weights, in 16 bit; on the CPU, "
        "and in little memory.",
    )
    gguf: Literal["f16", "bf16", "q8_0"] | None = Field(
        None,
        description="Write the merged model as GGUF of this type too, for llama.cpp and Ollama; needs "
        "`make gguf-converter`.",
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

    @model_validator(mode="after")
    def _merged_before_pushed(self) -> ExportSettings:
        if self.gguf is not None and not self.merged_16bit:
            raise ValueError("gguf is made of the merged model: set merged_16bit to true")
        if self.hub_merged_repo is not None and not self.merged_16bit:
            raise ValueError("hub_merged_repo needs a merged model: set merged_16bit to true")
        if self.hub_repo is not None and self.hub_repo == self.hub_merged_repo:
            raise ValueError("hub_repo and hub_merged_repo are the same; give each its own")
        return self


class SpotSettings(Section):
    """Spot instances: cheaper, and interrupted at times; checkpoints make that harmless."""

    enabled: bool = Field(False, description="Train on spot capacity.")
    max_wait_seconds: PositiveInt | None = Field(
        None, description="Longest time to wait and train, in seconds; at least max_run_seconds."
    )


class VpcSettings(Section):
    """The network that the job's instances are placed in."""

    subnets: list[str] = Field(min_length=1, max_length=16, description="Subnet ids.")
    security_groups: list[str] = Field(
        min_length=1, max_length=5, description="Security group ids."
    )


class SagemakerSettings(Section):
    """The SageMaker training job of ``--target sagemaker``; nothing here changes what is learned."""

    instance_types: list[str] = Field(
        min_length=1,
        max_length=5,
        description="GPU instance types in order of preference, e.g. ml.g5.2xlarge.",
    )
    role: str = Field(
        pattern=r"^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+$",
        description="ARN of the role that the job assumes.",
    )
    region: str | None = Field(
        None,
        pattern=r"^[a-z]{2}(-[a-z]+)+-\d$",
        description="AWS region; default: that of the AWS configuration.",
    )
    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="S3 bucket of inputs, checkpoints and results; it must exist.",
    )
    prefix: str = Field(
        "llm-engineering-finetuning",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$",
        description="Folder in the bucket.",
    )
    image: str | None = Field(
        None, description="Image URI; default: the pinned PyTorch training image of the region."
    )
    instance_count: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Instances that share each training step, with all of their GPUs."
    )
    image_python: Literal["3.11", "3.12"] = Field("3.12", description="Python in the image.")
    max_run_seconds: Annotated[int, Field(gt=0, le=2_419_200)] = Field(
        86_400, description="The job is stopped after so many seconds of training."
    )
    spot: SpotSettings = Field(default_factory=SpotSettings, description="Spot instances.")
    warm_pool_seconds: Annotated[int, Field(ge=0, le=21_600)] = Field(
        0, description="Seconds the instance is kept, and paid for, after the job."
    )
    volume_gb: Annotated[int, Field(ge=1, le=16_384)] = Field(
        100, description="Size of the instance's volume, in GB."
    )
    pending_timeout_seconds: PositiveInt = Field(
        3600, description="Stop a job that has not begun to train after so many seconds."
    )
    capacity_retries: NonNegativeInt = Field(
        1, description="Rounds through instance_types after the first when there is no capacity."
    )
    price_per_hour: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="USD an hour by instance type, for the cost ceiling."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of the job.")
    vpc: VpcSettings | None = Field(None, description="Network of the job; default: none.")
    kms_key: str | None = Field(
        None, description="KMS key of the results and the volume; default: S3's own encryption."
    )
    environment: dict[str, Annotated[str, Field(max_length=512)]] = Field(
        default_factory=dict, description="Environment of the job; never a secret."
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variable -> name or ARN of a Secrets Manager secret, which the "
        "job reads itself.",
    )

    @model_validator(mode="after")
    def _capacity_agrees(self) -> SagemakerSettings:
        wait = self.spot.max_wait_seconds
        if self.spot.enabled and wait is None:
            raise ValueError("spot.max_wait_seconds is required with spot.enabled")
        if self.spot.enabled and wait is not None and wait < self.max_run_seconds:
            raise ValueError(
                f"spot.max_wait_seconds ({wait}) must be at least max_run_seconds "
                f"({self.max_run_seconds})"
            )
        if self.spot.enabled and self.warm_pool_seconds:
            raise ValueError("spot.enabled and warm_pool_seconds exclude each other; drop one")
        twice = sorted({n for n in self.instance_types if self.instance_types.count(n) > 1})
        if twice:
            raise ValueError(f"instance_types names {', '.join(twice)} twice")
        return self


CheckName = Literal[
    "finite_losses",
    "trained_end_of_turn",
    "intact_adapter",
    "not_rolled_back",
    "parity",
    "forgetting",
    "better_than_base",
    "better_than_production",
]


class RegistrySettings(Section):
    """The registered model that a run adds a version to, and what makes a version production."""

    model: Name | None = Field(
        None,
        description="Name of the ZenML model; default: base model and data, as in the run's name.",
    )
    promote: bool = Field(
        True, description="Promote a version that passes every check; false: register it only."
    )
    checks: list[CheckName] = Field(
        list(get_args(CheckName)), description="What a version must pass to be promoted."
    )
    min_improvement: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0,
        description="Least decrease of the held-out loss, as a share of the production version's.",
    )
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = Field(
        0.95, description="Confidence that the decrease is real (paired bootstrap over rows)."
    )
    max_forgetting: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = Field(
        0.25,
        description="Largest increase of the loss on general text, as a share of the base model's.",
    )


class RetentionSettings(Section):
    """Which old output folders a scheduled run removes; production and the newest always stay."""

    keep_runs: PositiveInt = Field(10, description="Newest finished runs that are kept.")
    keep_days: PositiveInt = Field(
        30, description="Finished runs younger than so many days are kept too."
    )
    keep_interrupted_days: PositiveInt = Field(
        7, description="Checkpoints of interrupted runs are kept for so many days."
    )


class ScheduleSettings(Section):
    """What a scheduled run does beside fine-tuning."""

    retries: NonNegativeInt = Field(
        2, description="Further attempts after one that failed for no fault of the input."
    )
    retry_wait_seconds: NonNegativeInt = Field(
        60, description="Wait before the first retry, in seconds; doubled each time."
    )
    alert_command: list[str] | None = Field(
        None,
        min_length=1,
        description="Program and arguments run when a scheduled run fails; the message comes on "
        "its standard input. Default: the alerter of the ZenML stack, if it has one.",
    )
    keep_logs: PositiveInt = Field(20, description="Newest logs that are kept.")
    retention: RetentionSettings = Field(
        default_factory=RetentionSettings, description="Which old outputs are removed."
    )


class FinetuningConfig(Section):
    """A whole fine-tuning configuration, as one YAML file states it."""

    run: RunSettings = Field(default_factory=RunSettings)
    model: ModelSettings
    lora: LoraSettings = Field(default_factory=LoraSettings)
    data: DataSettings
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    export: ExportSettings = Field(default_factory=ExportSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    sagemaker: SagemakerSettings | None = Field(
        None, description="The job of --target sagemaker; not needed for local runs."
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> FinetuningConfig:
        if self.train.max_steps is not None and self.train.warmup_steps >= self.train.max_steps:
            raise ValueError(
                f"train.warmup_steps ({self.train.warmup_steps}) must be less than "
                f"train.max_steps ({self.train.max_steps}): the learning rate would never peak"
            )
        if OBJECTIVES[self.train.objective].is_preference:
            _require_preference_settings(self)
        elif self.data.on_contradictions != "warn":
            raise ValueError(
                f"data.on_contradictions ({self.data.on_contradictions}): {self.train.objective} has "
                "no preferences that could contradict one another; leave it out"
            )
        _require_weights_to_start_from(self)
        if self.model.load_in_4bit and self.model.dtype == "float32":
            raise ValueError(
                "model.load_in_4bit computes in 16 bit: set model.dtype to auto, bfloat16 or "
                "float16, not float32"
            )
        if (
            self.sagemaker is not None
            and self.sagemaker.spot.enabled
            and self.train.checkpoint_every is None
        ):
            raise ValueError(
                "sagemaker.spot.enabled needs checkpoints, or an interruption loses everything: "
                "set train.checkpoint_every"
            )
        for check, measured in (("parity", "parity_rows"), ("forgetting", "generic_passages")):
            asked = self.registry.promote and check in self.registry.checks
            if asked and not getattr(self.evaluate, measured):
                raise ValueError(
                    f"registry.checks names {check}, which evaluate.{measured} (0) leaves "
                    "unmeasured: raise that, or take the check off the list"
                )
        if self.evaluate.max_new_tokens >= self.model.max_seq_length:
            raise ValueError(
                f"evaluate.max_new_tokens ({self.evaluate.max_new_tokens}) must be less than "
                f"model.max_seq_length ({self.model.max_seq_length})"
            )
        return self


def _require_weights_to_start_from(config: FinetuningConfig) -> None:
    """Refuse what an initialisation from the base model's weights cannot go with."""
    init, start = config.lora.init, config.train.start_from
    if not INITIALISATIONS[init].reads_weights:
        return
    if start:
        raise ValueError(
            f"train.start_from ({start}) with lora.init: {init}, which starts from the base model's "
            "weights; drop one of the two"
        )
    if init == "pissa" and config.model.load_in_4bit:
        raise ValueError(
            "model.load_in_4bit (True) with lora.init: pissa, which starts from the 16-bit "
            "weights' principal components; drop one of the two"
        )
    if init == "loftq" and not config.model.load_in_4bit:
        raise ValueError(
            "lora.init: loftq starts from what quantisation took from the weights, and "
            "model.load_in_4bit is false; set that to true, or choose default, gaussian or pissa"
        )
    if init == "loftq" and config.export.merged_16bit:
        raise ValueError(
            "export.merged_16bit with lora.init: loftq, whose adapter makes up for the error of "
            "4-bit weights and is wrong on 16-bit ones; drop one of the two"
        )


def _require_preference_settings(config: FinetuningConfig) -> None:
    """Refuse what the preference objectives would ignore, or do otherwise than it says."""
    objective = config.train.objective
    if config.train.packing:
        raise ValueError(f"train.packing: pairs cannot be packed; set it to false for {objective}")
    if config.train.neftune_noise_alpha is not None:
        raise ValueError(
            f"train.neftune_noise_alpha: noise would blur what {objective} compares; leave it out"
        )
    if INITIALISATIONS[config.lora.init].reads_weights:
        raise ValueError(
            f"lora.init: {config.lora.init} starts away from the base model, which {objective} compares "
            "with; choose default or gaussian"
        )
    if config.lora.lora_dropout:
        raise ValueError(
            f"lora.lora_dropout ({config.lora.lora_dropout}): {objective} compares log-probabilities "
            "and so trains without dropout; set it to 0"
        )
    if config.data.loss_on != "completion":
        raise ValueError(
            f"data.loss_on: {objective} is about answers; set it to completion, the default"
        )
    for number, source in enumerate(config.data.sources):
        if source.form is not None:
            raise ValueError(
                f"data.sources.{number}.form ({source.form}): {objective} knows its rows by their "
                "columns; leave it out"
            )
    if OBJECTIVES[objective].least_micro_batch > 1:
        _require_company(config.train)


def _require_company(train: TrainSettings) -> None:
    """Refuse forward passes of one answer: KTO pairs its prompt with another's (its section 4.1)."""
    auto, accumulation = train.micro_batch == "auto", train.gradient_accumulation or 1
    if (train.rows_in_step // accumulation if auto else train.micro_batch) != 1:
        return
    key = (
        "micro_batch"
        if not auto
        else "effective_batch"
        if train.rows_in_step == 1
        else "gradient_accumulation"
    )
    raise ValueError(
        f"train.{key} ({getattr(train, key)}) leaves one row for a forward pass, and kto estimates "
        "its reference point from the other answers in it (arXiv 2402.01306, section 4.1); leave at "
        "least 2"
    )
