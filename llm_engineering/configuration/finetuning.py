"""A whole configuration: its sections, and the rules that hold between them."""

from __future__ import annotations

from pydantic import Field, model_validator

from llm_engineering.configuration.data import DataSettings
from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.export import ExportSettings
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.configuration.registry import RegistrySettings
from llm_engineering.configuration.run import RunSettings
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.configuration.section import Section
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.configuration.zenml import ZenmlSettings
from llm_engineering.initialisations import INITIALISATIONS
from llm_engineering.objectives import OBJECTIVES


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
    # Never dumped: an alert's command or address may be a secret, and no result depends on it.
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings, exclude=True)
    sagemaker: SagemakerSettings | None = Field(
        None, description="The job of --target sagemaker; not needed for local runs."
    )
    zenml: ZenmlSettings = Field(
        default_factory=ZenmlSettings, description="What a run asks of its ZenML stack."
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
        _require_quantisation(self)
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
        _require_scores_that_checks_name(self)
        lengths = {"evaluate.max_new_tokens": self.evaluate.max_new_tokens}
        if self.evaluate.answers is not None:
            lengths["evaluate.answers.max_new_tokens"] = self.evaluate.answers.max_new_tokens
        for key, tokens in lengths.items():
            if tokens >= self.model.max_seq_length:
                raise ValueError(
                    f"{key} ({tokens}) must be less than model.max_seq_length "
                    f"({self.model.max_seq_length})"
                )
        return self


def _require_scores_that_checks_name(config: FinetuningConfig) -> None:
    """Refuse a check by a score, or by a benchmark, that nothing measures."""
    forgotten = config.registry.most_forgotten_tasks
    if forgotten and not config.evaluate.benchmarks:
        raise ValueError(
            f"registry.max_forgetting names {', '.join(forgotten)}, and evaluate.benchmarks measures "
            "none; add that task there, or name general_text alone"
        )
    answers = config.evaluate.answers
    known = [] if answers is None else [one.name for one in answers.scorers]
    unknown = [name for name in config.registry.scores if name not in known]
    if unknown:
        raise ValueError(
            f"registry.checks names better_at: {unknown[0]}, which evaluate.answers.scorers does not "
            f"measure (measured: {', '.join(known) or 'none'}); add that scorer, or take the check off "
            "the list"
        )


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
    if init == "pissa" and config.model.quantisation != "none":
        raise ValueError(
            f"model.quantisation ({config.model.quantisation}) with lora.init: pissa, which starts from the 16-bit "
            "weights' principal components; drop one of the two"
        )
    if init == "loftq" and config.model.quantisation != "nf4":
        raise ValueError(
            "lora.init: loftq starts from what NF4 took from the weights, and model.quantisation is "
            f"{config.model.quantisation}; set that to nf4, or choose another lora.init"
        )
    if init == "loftq" and config.export.merged_16bit:
        raise ValueError(
            "export.merged_16bit with lora.init: loftq, whose adapter makes up for the error of "
            "4-bit weights and is wrong on 16-bit ones; drop one of the two"
        )


def _require_quantisation(config: FinetuningConfig) -> None:
    """Refuse what quantised weights cannot go with."""
    asked, dtype = config.model.quantisation, config.model.dtype
    if asked == "nf4" and dtype == "float32":
        raise ValueError(
            "model.quantisation: nf4 computes in 16 bit: set model.dtype to auto, bfloat16 or "
            "float16, not float32"
        )
    if asked == "fp8" and dtype not in ("auto", "bfloat16"):
        raise ValueError(
            "model.quantisation: fp8 computes in bfloat16: set model.dtype to auto or bfloat16, not "
            f"{dtype}"
        )
    if asked == "fp8" and config.lora.use_dora:
        raise ValueError(
            "model.quantisation: fp8 with lora.use_dora, whose magnitudes are those of the 16-bit "
            "weights; drop one of the two"
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
    forms = {f"sources.{number}": one.form for number, one in enumerate(config.data.sources)}
    for place, form in {**forms, "held_out": config.data.held_out.form}.items():
        if form is not None:
            raise ValueError(
                f"data.{place}.form ({form}): {objective} knows its rows by their columns; leave it "
                "out"
            )
