"""The section ``sagemaker``: the training job of ``--target sagemaker``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llm_engineering.configuration.section import NonNegativeInt, PositiveInt, Section


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
    job_prefix: str = Field(
        "finetuning",
        pattern=r"^[A-Za-z0-9](-*[A-Za-z0-9]){0,19}$",
        description="What the names of the jobs start with; policies may be restricted to it.",
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
