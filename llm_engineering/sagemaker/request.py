"""The CreateTrainingJob request: a plain dictionary, checked here by botocore's model of the API.

Nothing is asked or sent to build it, so that a dry run shows what a launch sends.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.image import TrainingImage
from llm_engineering.sagemaker.instances import INSTANCES
from llm_engineering.sagemaker.job import BASE_MODEL, CODE, CONFIG, DATASET, HUB_CACHE
from llm_engineering.sagemaker.start import CODEARTIFACT, WHEELHOUSE

ENTRYPOINT = ["python3", f"/opt/ml/input/data/{CODE}/start.py"]
"""No shell in between: the service's SIGTERM reaches the job itself."""
CHECKPOINTS = "/opt/ml/checkpoints"
MAX_NAME = 63
EBS_GB = 100
"""Size of a volume that nothing is said of."""
LOCAL_STORE_GB = 30
"""Size that is asked for where a local store makes it meaningless: the SDK's default, below any."""
METRICS = {
    "train:loss": r"step [0-9]+ of [0-9]+ .{1,3} loss ([0-9]+\.[0-9]+)",
    "held_out:loss": r"held-out ([0-9]+\.[0-9]+) at step",
}
"""Name in CloudWatch and the console -> what finds it in the log lines of a training's progress."""


@dataclass(frozen=True)
class JobInputs:
    """The S3 folders that a job reads, each with a slash at its end."""

    config: str
    dataset: str
    base_model: str | None
    code: str  # start.py and source.tar.gz


def job_name(model: str, data: str, digest: str, attempt: int) -> str:
    """A job's name: what it trains, and the digest of everything that decides the result.

    The same training always has the same name, so that it cannot be paid for twice by accident.

    Returns:
        At most 63 characters of letters, digits and single hyphens, as the service demands.
    """
    tail = digest[:12] + (f"-{attempt}" if attempt > 1 else "")
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{model}-{data}").strip("-")
    return f"{words[: MAX_NAME - len(tail) - 1].rstrip('-')}-{tail}"


def build_request(
    settings: SagemakerSettings,
    *,
    name: str,
    instance_types: Sequence[str],
    image: TrainingImage,
    inputs: JobInputs,
    tags: Mapping[str, str],
    checkpoints: str,
) -> dict[str, Any]:
    """Make the request, as boto3's ``create_training_job`` takes it.

    Args:
        settings: Where and on what the job runs.
        name: The job's exact name.
        instance_types: One, or several in order of preference: then the service takes the first
            that it has, which it does on demand only.
        image: The training image.
        inputs: Input channels.
        tags: Of the job; the configured ones are added.
        checkpoints: Name of the S3 folder of checkpoints; jobs that share it go on from each
            other's.

    Raises:
        LaunchError: The API's model does not allow it; says which member and why.
    """
    home = f"s3://{settings.bucket}/{settings.prefix}"
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "RoleArn": settings.role,
        "AlgorithmSpecification": {
            "TrainingImage": image.uri,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ENTRYPOINT,
            "MetricDefinitions": [{"Name": k, "Regex": v} for k, v in METRICS.items()],
        },
        "InputDataConfig": _channels(settings, inputs),
        "OutputDataConfig": {"S3OutputPath": f"{home}/results"},
        "CheckpointConfig": {
            "S3Uri": f"{home}/checkpoints/{checkpoints}",
            "LocalPath": CHECKPOINTS,
        },
        "ResourceConfig": _resources(settings, instance_types),
        "StoppingCondition": _stopping(settings),
        "EnableManagedSpotTraining": settings.spot.enabled,
        "Environment": _environment(settings, name),
        "Tags": [{"Key": k, "Value": v} for k, v in sorted({**settings.tags, **tags}.items())],
    }
    if settings.kms_key:
        request["OutputDataConfig"]["KmsKeyId"] = settings.kms_key
    if settings.vpc is not None:
        request["VpcConfig"] = {
            "Subnets": settings.vpc.subnets,
            "SecurityGroupIds": settings.vpc.security_groups,
        }
    if settings.network_isolation:
        request["EnableNetworkIsolation"] = True
    if settings.encrypt_between_instances:
        request["EnableInterContainerTrafficEncryption"] = True
    if settings.internal_retries:
        request["RetryStrategy"] = {"MaximumRetryAttempts": settings.internal_retries}
    validate_request(request)
    return request


def validate_request(request: Mapping[str, Any], operation: str = "CreateTrainingJob") -> None:
    """Check a request by botocore's model of the API: members, types, lengths, patterns, choices.

    Raises:
        LaunchError: Names each member that the model does not allow.
    """
    from botocore.validate import ParamValidator

    shape = _api().operation_model(operation).input_shape
    report = ParamValidator().validate(dict(request), shape)
    problems = [report.generate_report()] if report.has_errors() else []
    problems = problems or list(_broken(request, shape, ""))
    if problems:
        raise LaunchError(
            f"{_subject(request)}: the request would not be valid: " + "; ".join(problems)
        )


def _subject(request: Mapping[str, Any]) -> str:
    job = request.get("TrainingJobName")
    named = [str(value) for name, value in request.items() if name.endswith("Name")]
    return f"job {job}" if job else (named or ["it"])[0]


def has_local_store(instance_types: Sequence[str]) -> bool:
    """Whether any of the types has an NVMe store of its own, whose key and size cannot be chosen."""
    return any(
        name in INSTANCES and INSTANCES[name].storage_gb is not None for name in instance_types
    )


def _channels(settings: SagemakerSettings, inputs: JobInputs) -> list[dict[str, Any]]:
    places = {CONFIG: inputs.config, DATASET: inputs.dataset, CODE: inputs.code}
    if inputs.base_model is not None:
        places[BASE_MODEL] = inputs.base_model
    if settings.packages.wheelhouse is not None:
        places[WHEELHOUSE] = f"{settings.packages.wheelhouse.rstrip('/')}/"
    return [
        {
            "ChannelName": channel,
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": uri,
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
            "InputMode": settings.base_model_mode if channel == BASE_MODEL else "File",
        }
        for channel, uri in places.items()
    ]


def _resources(settings: SagemakerSettings, instance_types: Sequence[str]) -> dict[str, Any]:
    local = has_local_store(instance_types)
    all_local = local and all(has_local_store([name]) for name in instance_types)
    resources: dict[str, Any] = {
        "InstanceCount": settings.instance_count,
        "VolumeSizeInGB": settings.volume_gb or (LOCAL_STORE_GB if all_local else EBS_GB),
    }
    if len(instance_types) == 1:
        resources["InstanceType"] = instance_types[0]
    else:
        resources["InstancePreferences"] = [{"InstanceType": name} for name in instance_types]
    if settings.kms_key and not local:  # AWS refuses it for a local store, which has its own key
        resources["VolumeKmsKeyId"] = settings.kms_key
    if settings.warm_pool_seconds:
        resources["KeepAlivePeriodInSeconds"] = settings.warm_pool_seconds
    return resources


def _stopping(settings: SagemakerSettings) -> dict[str, int]:
    """The service's own watch, which goes on when the launcher's host is off."""
    stopping = {"MaxRuntimeInSeconds": settings.max_run_seconds}
    if settings.spot.enabled and settings.spot.max_wait_seconds is not None:
        stopping["MaxWaitTimeInSeconds"] = settings.spot.max_wait_seconds
    else:
        stopping["MaxPendingTimeInSeconds"] = settings.pending_timeout_seconds
    return stopping


def _environment(settings: SagemakerSettings, name: str) -> dict[str, str]:
    ours = {"HF_HOME": HUB_CACHE}  # /root/.cache, the default, is no part of the large volume
    if settings.packages.codeartifact is not None:
        ours[CODEARTIFACT] = settings.packages.codeartifact
    if settings.mlflow is not None:  # read by MLflow and by transformers' callback
        ours["MLFLOW_TRACKING_URI"] = settings.mlflow
        ours["MLFLOW_EXPERIMENT_NAME"] = settings.job_prefix
        ours["MLFLOW_TAGS"] = json.dumps({"job": name})
    return {**ours, **settings.environment}


@cache
def _api() -> Any:
    """botocore's model of SageMaker's API; read from its files, without a client or a region."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")


def _broken(value: Any, shape: Any, path: str) -> Iterator[str]:
    """The limits of a shape and its members that a value breaks; botocore checks the rest."""
    limits = shape.metadata
    if shape.type_name == "structure":
        for name, each in value.items():
            yield from _broken(each, shape.members[name], f"{path}.{name}".lstrip("."))
        return
    size = value if isinstance(value, int) else len(value) if hasattr(value, "__len__") else None
    if size is not None and not limits.get("min", size) <= size <= limits.get("max", size):
        yield f"{path}: {value!r} is not within {limits.get('min', 0)} and {limits.get('max')}"
    if isinstance(value, str):
        choices, pattern = limits.get("enum"), limits.get("pattern")
        if choices and value not in choices:
            yield f"{path}: {value!r} is none of the API's"
        if pattern and not _matches(value, pattern):
            yield f"{path}: {value!r} does not match {pattern}"
    elif shape.type_name == "list":
        for position, each in enumerate(value):
            yield from _broken(each, shape.member, f"{path}[{position}]")
    elif shape.type_name == "map":
        for key, each in value.items():
            yield from _broken(key, shape.key, f"{path} (key)")
            yield from _broken(each, shape.value, f"{path}.{key}")


def _matches(value: str, pattern: str) -> bool:
    """Whether a value matches a pattern of the model, whose classes are Java's."""
    for java, python in {
        r"\p{Alnum}": "a-zA-Z0-9",
        r"\p{L}": r"\w",
        r"\p{N}": r"\d",
        r"\p{Z}": r"\s",
    }.items():
        pattern = pattern.replace(java, python)
    return re.fullmatch(pattern, value, re.DOTALL) is not None


def redacted(request: dict[str, Any]) -> str:
    """A request as text, without the values of environment variables."""
    shown = json.loads(json.dumps(request, default=str))
    shown["Environment"] = dict.fromkeys(shown.get("Environment", {}), "...")
    return json.dumps(shown, indent=2)
