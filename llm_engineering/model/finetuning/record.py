"""What training leaves behind beside the adapter: the course of the loss, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.planning.batch_plan import BatchPlan
from llm_engineering.planning.step_size import StepSize


class TrainingPoint(BaseModel):
    """One logged optimizer step."""

    step: int
    loss: float = Field(description="Mean loss per trained token since the last point, in nats.")
    learning_rate: float
    grad_norm: float | None = Field(description="Norm of the gradient before clipping.")
    tokens_per_second: float = Field(description="Tokens read since the last point, per second.")
    reward_margin: float | None = Field(
        None, description="Reward of the better answers minus that of the worse, if any is learned."
    )
    aux_loss: float | None = Field(
        None,
        description="How unevenly a mixture's router chose its experts, before the family's coefficient "
        "(1 or the number of experts chosen: evenly); None: the family has no such loss.",
    )


class HeldOutPoint(BaseModel):
    """The held-out metrics after so many optimizer steps; step 0 is before training."""

    step: int
    metrics: HeldOutMetrics


class SamplePoint(BaseModel):
    """Answers to the sample prompts, in their order, after so many optimizer steps."""

    step: int
    answers: list[str]


class ProductionMetrics(BaseModel):
    """A production version's metrics on held-out rows that it was not saved with."""

    version: str
    metrics: HeldOutMetrics
    samples: list[str] = Field(
        [], description="Its greedy answers to the run's sample prompts, in their order."
    )


class JobRecord(BaseModel):
    """The remote job that trained, and what it cost."""

    name: str
    arn: str
    console: str = Field(description="Link to the job in the AWS console.")
    region: str
    instance_type: str
    image: str
    spot: bool
    restarts: int = Field(description="Times that spot capacity was lost and found again.")
    billable_seconds: int
    training_seconds: int
    cost_usd: float | None = Field(description="Billable hours times the configured price.")
    packages: dict[str, str] = Field(description="Versions in the job.")
    python: str
    platform: str
    parity: list[ParityProof] = Field([], description="Of its exports, proven in the job.")
    model_artifact: str = Field("", description="S3 URI of its model.tar.gz.")
    serving: str = Field("", description="What AWS's serving container takes model.tar.gz as.")
    is_anchored: bool = Field(
        False, description="Whether its results were held against the digest in the job's log."
    )
    model_package: str | None = Field(
        None, description="ARN in SageMaker's Model Registry, where that was asked for."
    )


class HostRecord(BaseModel):
    """The host of its own that a train step had, and what it proved there."""

    packages: dict[str, str] = Field(description="Versions on that host.")
    python: str
    platform: str
    parity: list[ParityProof] = Field(description="Of the exports, proven there.")


class TrainingRecord(BaseModel):
    """The course and the cost of a training run; a resumed run's includes what came before."""

    objective: ObjectiveName = "sft"
    beta: float = Field(0.0, description="Of a preference objective.")
    started_from: str | None = Field(
        None, description="SHA-256 of the adapter that training started from, if not a fresh one."
    )
    points: list[TrainingPoint] = []
    held_out: list[HeldOutPoint] = []
    validation: list[HeldOutPoint] = Field(
        [],
        description="The same of the validation rows, by which weights are kept or training ends; "
        "held_out is then that of the first and the saved weights alone.",
    )
    kept_step: int | None = Field(
        None, description="Step whose weights were saved, where the best are kept."
    )
    stopped_early: bool = Field(False, description="The held-out loss had ceased to fall.")
    samples: list[SamplePoint] = Field([], description="Answers given while training.")
    steps: int = Field(0, description="Optimizer steps.")
    epochs: float = Field(0.0, description="Passes over the data.")
    step_size: StepSize | None = Field(None, description="What went into an optimizer step.")
    effective_batch: int = Field(0, description="Rows in one optimizer step.")
    plan: BatchPlan | None = Field(None, description="How a rank's rows went through its device.")
    ranks: int = Field(1, description="Processes that shared each step, each with a device.")
    train_tokens: int = Field(0, description="Tokens read in training, padding excluded.")
    train_seconds: float = Field(
        0.0,
        description="Seconds from the first rows to the last step, from end to end: data, checkpoints "
        "and log too; held-out evaluations and sample answers excluded.",
    )
    peak_memory_bytes: int = Field(0, description="Reserved GPU memory, or RAM on a CPU.")
    device: str = Field("", description="GPU or CPU.")
    resumed_from_step: int | None = Field(
        None, description="Step of the checkpoint continued from."
    )
    resumed_from_run: str | None = Field(None, description="Name of the interrupted run.")
    earlier_runs: list[str] = Field(
        [], description="Those that the interrupted run itself went on from, oldest first."
    )
    job: JobRecord | None = Field(None, description="The remote job, where one trained.")
    host: HostRecord | None = Field(
        None, description="The train step's own host, where the other steps had others."
    )
    evaluation: Evaluation | None = Field(
        None, description="Made where it was trained; None: to be made by this process."
    )
    production: ProductionMetrics | None = Field(
        None, description="The production version on this run's rows, measured there too."
    )

    @property
    def there(self) -> JobRecord | HostRecord | None:
        """Where it was trained, if not where the other steps run: its exports were proven there."""
        return self.job or self.host

    @property
    def continued_runs(self) -> list[str]:
        """Names of all interrupted runs that this training went through, oldest first."""
        newest = [self.resumed_from_run] if self.resumed_from_run else []
        return list(dict.fromkeys([*self.earlier_runs, *newest]))

    @property
    def planned_memory_bytes(self) -> int | None:
        """The plan's estimate of ``peak_memory_bytes``; None on a CPU."""
        estimate = self.plan.estimate if self.plan else None
        return int(estimate.reserved) if estimate else None

    @property
    def tokens_per_second(self) -> float:
        """Tokens read per second of training."""
        return self.train_tokens / self.train_seconds if self.train_seconds else 0.0

    @property
    def before(self) -> HeldOutMetrics:
        """Held-out metrics before the first step: of the base model, or of the starting adapter."""
        return self.held_out[0].metrics

    @property
    def after(self) -> HeldOutMetrics:
        """Held-out metrics of the trained adapter."""
        kept = [point for point in self.held_out if point.step == self.kept_step]
        return (kept or self.held_out)[-1].metrics


@dataclass(frozen=True)
class AdapterFolder:
    """A trained adapter on disk, in PEFT's format."""

    folder: Path
    digest: str
    """SHA-256 of ``adapter_model.safetensors``."""
