"""The section ``sagemaker``: the training job of ``--target sagemaker``."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from llm_engineering.configuration.section import NonNegativeInt, PositiveInt, Section

S3Folder = Annotated[
    str,
    Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()=+,@-]+)+/?$"),
]
PINNED_PYTHON: Final = "3.12"
"""Python of the pinned PyTorch training image, the one that AWS builds for it."""


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


class PackageSettings(Section):
    """Where the job's Python packages come from; default: pip's own index, over the internet."""

    codeartifact: str | None = Field(
        None,
        pattern=r"^arn:aws[a-z-]*:codeartifact:[a-z0-9-]+:\d{12}:repository/[\w.-]+/[\w.-]+$",
        description="ARN of a CodeArtifact repository; the job logs in to it by its own role.",
    )
    wheelhouse: S3Folder | None = Field(
        None,
        description="S3 folder with all wheels, for a network without internet "
        "(docs/sagemaker/README.md says how to fill it).",
    )

    @model_validator(mode="after")
    def _one_place(self) -> PackageSettings:
        if self.codeartifact and self.wheelhouse:
            raise ValueError("codeartifact and wheelhouse exclude each other; drop one")
        return self


class ModelPackageSettings(Section):
    """SageMaker's Model Registry: what is registered there after a job has completed."""

    group: str = Field(
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$",
        description="Model package group; made if it is not there.",
    )
    image: str = Field(
        max_length=255,
        description="URI of the container that shall serve the model, e.g. AWS's djl-inference "
        "image of LMI.",
    )


class EndpointSettings(Section):
    """The endpoint of ``--deploy sagemaker``: it is paid for by the hour until ``--undeploy``."""

    instance_type: str = Field(
        pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$",
        description="GPU instance type that serves, e.g. ml.g5.2xlarge.",
    )
    image: str = Field(
        max_length=255,
        description="URI of AWS's LMI container (djl-inference) in the endpoint's region.",
    )
    name: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,49}$",
        description="Name of the endpoint; default: job_prefix and the registered model's name.",
    )
    instance_count: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Instances that serve side by side; each is paid for."
    )
    startup_seconds: Annotated[int, Field(ge=60, le=3_600)] = Field(
        1_800,
        description="Longest time to fetch the files, and as long again to answer, in seconds.",
    )
    price_per_hour: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="USD an hour of one instance; default: AWS's list, where it may be read.",
    )
    inference_ami: str | None = Field(
        None,
        pattern=r"^[a-z0-9.-]+$",
        description="InferenceAmiVersion, where an image needs a newer driver than the default's.",
    )
    environment: dict[str, Annotated[str, Field(max_length=1_024)]] = Field(
        default_factory=dict,
        description="Environment of the container, such as OPTION_MAX_MODEL_LEN; never a secret.",
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
        description="Folder in the bucket; a slash at its end is dropped.",
    )
    job_prefix: str = Field(
        "finetuning",
        pattern=r"^[A-Za-z0-9](-*[A-Za-z0-9]){0,19}$",
        description="What the names of the jobs start with; policies may be restricted to it.",
    )
    image: str | None = Field(
        None,
        max_length=255,
        description="Image URI, by tag or by @sha256 digest; default: the pinned PyTorch training "
        "image of the region. A tag is sent as the digest it stands for, where ECR tells.",
    )
    instance_count: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Instances that share each training step, with all of their GPUs."
    )
    image_python: Literal["3.11", "3.12"] = Field(
        PINNED_PYTHON, description="Python in the image; the pinned one has 3.12."
    )
    model_package: ModelPackageSettings | None = Field(
        None, description="Register what a job has made in SageMaker's Model Registry too."
    )
    endpoint: EndpointSettings | None = Field(
        None, description="Endpoint of --deploy sagemaker; nothing of it concerns the training job."
    )
    mlflow: str | None = Field(
        None,
        pattern=r"^arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:mlflow-(tracking-server|app)/[\w-]+$",
        description="ARN of a managed MLflow tracking server, or app, that the job logs to; with "
        "train.trackers: [mlflow].",
    )
    packages: PackageSettings = Field(
        default_factory=PackageSettings, description="Source of the job's Python packages."
    )
    base_model: S3Folder | None = Field(
        None,
        description="S3 folder with the files of model.id, which the job reads instead of fetching "
        "them from the Hub at every start.",
    )
    base_model_mode: Literal["File", "FastFile"] = Field(
        "File",
        description="How the job gets the base model's files: copied first, or read as a stream.",
    )
    max_run_seconds: Annotated[int, Field(gt=0, le=2_419_200)] = Field(
        86_400, description="The job is stopped after so many seconds of training."
    )
    spot: SpotSettings = Field(default_factory=SpotSettings, description="Spot instances.")
    warm_pool_seconds: Annotated[int, Field(ge=0, le=21_600)] = Field(
        0, description="Seconds the instance is kept, and paid for, after the job."
    )
    volume_gb: Annotated[int, Field(ge=1, le=16_384)] | None = Field(
        None,
        description="Size of the instance's EBS volume, in GB; default: 100. A type with a local "
        "NVMe store, as nearly all have, uses that instead: its size is fixed, and at least this.",
    )
    pending_timeout_seconds: Annotated[int, Field(ge=7_200, le=2_419_200)] = Field(
        7_200,
        description="The service stops an on-demand job that has got no instance after so many "
        "seconds; spot waits for spot.max_wait_seconds.",
    )
    capacity_retries: NonNegativeInt = Field(
        1, description="Rounds through instance_types after the first when there is no capacity."
    )
    internal_retries: Annotated[int, Field(ge=0, le=30)] = Field(
        2,
        description="Times that the service itself starts the job again after an error of its own "
        "(InternalServerError), from the job's checkpoints.",
    )
    price_per_hour: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="USD an hour by instance type, for the cost ceiling."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of the job.")
    vpc: VpcSettings | None = Field(None, description="Network of the job; default: none.")
    network_isolation: bool = Field(
        False,
        description="The job's container reaches no network at all; needs packages.wheelhouse and "
        "a base model of S3 or of this host.",
    )
    encrypt_between_instances: bool = Field(
        False,
        description="Encrypt what the job's instances send each other; slower.",
    )
    kms_key: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9:/_-]{1,2048}$",
        description="KMS key of what is uploaded, of results, and of an EBS volume (a local store "
        "has its own hardware key); default: S3's own encryption.",
    )
    environment: dict[str, Annotated[str, Field(max_length=512)]] = Field(
        default_factory=dict, description="Environment of the job; never a secret."
    )
    secrets: dict[str, str] = Field(
        default_factory=dict,
        description="Environment variable -> name or ARN of a Secrets Manager secret, which the "
        "job reads itself; name:key for one key of a JSON secret.",
    )

    @field_validator("prefix")
    @classmethod
    def _plain_prefix(cls, value: str) -> str:
        value = value.rstrip("/")
        if "//" in value or "." in value.split("/") or ".." in value.split("/"):
            raise ValueError(
                f"{value!r} has an empty part or a '.'; write it as team/finetuning: S3 would take "
                "it literally, and a job fails on it"
            )
        return value

    @model_validator(mode="after")
    def _image_has_the_python(self) -> SagemakerSettings:
        if self.image is None and self.image_python != PINNED_PYTHON:
            raise ValueError(
                f"image_python: the pinned image has Python {PINNED_PYTHON}, none has "
                f"{self.image_python}; leave it out, or name an image"
            )
        return self

    @model_validator(mode="after")
    def _isolation_agrees(self) -> SagemakerSettings:
        if not self.network_isolation:
            return self
        if self.packages.wheelhouse is None:
            raise ValueError(
                "network_isolation: the job could install nothing; give packages.wheelhouse"
            )
        if self.secrets:
            raise ValueError(
                "network_isolation: the job could not read secrets "
                f"({', '.join(self.secrets)}); drop one of the two"
            )
        if self.mlflow is not None:
            raise ValueError(
                "network_isolation: the job could not reach mlflow; drop one of the two"
            )
        return self

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
