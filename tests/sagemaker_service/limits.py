"""Checking a CreateTrainingJob request by the service's own model and its documented rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape
from botocore.validate import ParamValidator

from sagemaker_service.errors import not_simulated, validation_error
from sagemaker_service.storage_types import local_storage_gb

MAX_RUNTIME_S = 28 * 24 * 3600
MAX_HOSTS = 4  # of this machine's, not of the service's
ECR_IMAGE = re.compile(
    r"\d{12}\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/[^:@]+(:[^:@]+|@sha256:[0-9a-f]{64})?"
)
# Java's classes in the model's patterns, in Python's terms.
JAVA_CLASSES = {
    r"\p{Alnum}": "a-zA-Z0-9",
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": r"\s",
    # Marks, symbols and punctuation, as far as these tests write them.
    r"\p{M}": "\u0300-\u036f",
    r"\p{S}": r"$+<=>\^`|~",
    r"\p{P}": r"!-/:-@\[-`{-~",
}


@cache
def sagemaker_model() -> ServiceModel:
    """botocore's model of the SageMaker API."""
    return ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")


def check_parameters(operation: str, parameters: Mapping[str, Any]) -> None:
    """Check types, required members, lengths, counts, ranges, patterns and enumerations.

    Raises:
        ServiceError: ValidationException, with every violation in AWS's wording.
    """
    shape = sagemaker_model().operation_model(operation).input_shape
    if shape is None:
        return
    report = ParamValidator().validate(dict(parameters), shape)
    if report.has_errors():
        raise validation_error(report.generate_report())
    violations = list(_violations(parameters, shape, ""))
    if violations:
        plural = "s" if len(violations) > 1 else ""
        raise validation_error(
            f"{len(violations)} validation error{plural} detected: {'; '.join(violations)}"
        )


def check_rules(request: Mapping[str, Any], region: str) -> None:
    """Check what the documentation says beyond the model; the wording is ours where unknown.

    Raises:
        ServiceError: ValidationException for the first rule that is broken.
    """
    _check_algorithm(request["AlgorithmSpecification"], region)
    _check_resources(request.get("ResourceConfig"), bool(request.get("EnableManagedSpotTraining")))
    _check_times(request)
    _check_places(request)
    channels = request.get("InputDataConfig", [])
    names = [channel["ChannelName"] for channel in channels]
    if len(set(names)) < len(names):
        raise validation_error(f"Channel names must be unique, got {', '.join(sorted(names))}.")
    for channel in channels:
        _check_channel(channel)
    keys = [tag["Key"] for tag in request.get("Tags", [])]
    if len(set(keys)) < len(keys):
        raise validation_error("Duplicate tag keys found. Please use unique keys.")
    if any(key.lower().startswith("aws:") for key in keys):
        raise validation_error("Tag keys beginning with 'aws:' are reserved for AWS use.")
    local = request.get("CheckpointConfig", {}).get("LocalPath", "/opt/ml/checkpoints")
    if not local.startswith("/opt/ml/"):
        raise not_simulated(f"a checkpoint folder outside /opt/ml ({local})")


def _check_algorithm(algorithm: Mapping[str, Any], region: str) -> None:
    image = algorithm.get("TrainingImage")
    if bool(image) == bool(algorithm.get("AlgorithmName")):
        raise validation_error(
            "You must specify exactly one of AlgorithmName and TrainingImage in "
            "AlgorithmSpecification."
        )
    if not image:
        raise not_simulated("AlgorithmName")
    match = ECR_IMAGE.fullmatch(image)
    if match is None:
        raise validation_error(
            f"Invalid image URI {image}. Please provide a valid Amazon Elastic Container "
            "Registry path of the Docker image to run"
        )
    if match["region"] != region:
        raise validation_error(
            f"The image {image} must be in the same region as the training job ({region})."
        )
    if algorithm["TrainingInputMode"] == "Pipe":
        raise not_simulated("input mode Pipe")
    if not algorithm.get("ContainerEntrypoint"):
        raise not_simulated("the image's own entry point (no ContainerEntrypoint)")


def _check_resources(resources: Mapping[str, Any] | None, spot: bool) -> None:
    if resources is None:
        raise validation_error("ResourceConfig is required.")
    ways = [key for key in ("InstanceType", "InstanceGroups", "InstancePreferences")
            if resources.get(key)]  # fmt: skip
    if len(ways) != 1:
        raise validation_error(
            "ResourceConfig needs exactly one of InstanceType, InstanceGroups and "
            f"InstancePreferences, got {', '.join(ways) or 'none'}."
        )
    if ways == ["InstanceGroups"]:
        raise not_simulated("a heterogeneous cluster (InstanceGroups)")
    preferences = resources.get("InstancePreferences", [])
    if preferences and spot:
        raise validation_error(
            "InstancePreferences is mutually exclusive with EnableManagedSpotTraining."
        )
    types = [each["InstanceType"] for each in preferences] or [resources["InstanceType"]]
    if len(set(types)) < len(types):
        raise validation_error("An instance type can appear only once in InstancePreferences.")
    _check_counts(resources, preferences)
    for read_only in ("SelectedInstanceType", "SelectedInstanceCount"):
        if read_only in resources:
            raise validation_error(f"{read_only} is read-only and isn't accepted.")
    for each in types:
        _check_storage(each, resources)


def _check_counts(resources: Mapping[str, Any], preferences: Sequence[Mapping[str, Any]]) -> None:
    own = [each["InstanceCount"] for each in preferences if "InstanceCount" in each]
    shared = resources.get("InstanceCount")
    if preferences and (bool(own) == bool(shared) or (own and len(own) < len(preferences))):
        raise validation_error(
            "Set InstanceCount either in ResourceConfig or on every one of InstancePreferences."
        )
    if not preferences and not shared:
        raise validation_error("InstanceCount must be at least 1.")
    if any(count > MAX_HOSTS for count in [*own, shared or 0]):
        raise not_simulated(f"more than {MAX_HOSTS} instances ({max([*own, shared or 0])})")
    if len(set(own)) > 1:
        raise not_simulated("a count of its own for each of InstancePreferences")


def _check_storage(instance_type: str, resources: Mapping[str, Any]) -> None:
    """A local NVMe store has a size of its own and a key of its own; EBS must be told both."""
    local, size = local_storage_gb(instance_type), resources.get("VolumeSizeInGB")
    if not size:
        raise validation_error("VolumeSizeInGB must be at least 1.")
    if local is not None and size > local:
        raise validation_error(
            f"The requested VolumeSizeInGB {size} is more than the {local} GB of instance storage "
            f"that {instance_type} has."
        )
    if local is not None and resources.get("VolumeKmsKeyId"):
        raise validation_error(
            f"VolumeKmsKeyId is not supported for {instance_type}, which uses local storage "
            "encrypted by a hardware module."
        )


def _check_places(request: Mapping[str, Any]) -> None:
    """Keys with an empty part: a real job failed on one (aws-samples, pull request 242)."""
    places = [channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")
              for channel in request.get("InputDataConfig", [])]  # fmt: skip
    places += [
        request["OutputDataConfig"]["S3OutputPath"],
        request.get("CheckpointConfig", {}).get("S3Uri", ""),
    ]
    for place in places:
        if "//" in place.partition("://")[2]:
            raise validation_error(f"The S3 location {place} has an empty part ('//').")


def _check_times(request: Mapping[str, Any]) -> None:
    stopping = request.get("StoppingCondition", {})
    run, wait = stopping.get("MaxRuntimeInSeconds"), stopping.get("MaxWaitTimeInSeconds")
    if run is not None and run > MAX_RUNTIME_S:
        raise validation_error(
            f"MaxRuntimeInSeconds {run} is more than the maximum of {MAX_RUNTIME_S}."
        )
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < (run or 0):
            raise validation_error(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal "
                "to MaxRuntimeInSeconds"
            )
        if request["ResourceConfig"].get("KeepAlivePeriodInSeconds"):
            raise validation_error(
                "KeepAlivePeriodInSeconds is not supported for managed spot training."
            )
    elif wait is not None:
        raise validation_error(
            "MaxWaitTimeInSeconds is supported only when EnableManagedSpotTraining is true."
        )


def _check_channel(channel: Mapping[str, Any]) -> None:
    name, source = channel["ChannelName"], channel["DataSource"].get("S3DataSource")
    if source is None:
        raise not_simulated(f"channel {name}: a data source other than S3")
    if source["S3DataType"] != "S3Prefix":
        raise not_simulated(f"channel {name}: S3DataType {source['S3DataType']}")
    if channel.get("CompressionType", "None") != "None":
        raise not_simulated(f"channel {name}: CompressionType {channel['CompressionType']}")
    if channel.get("InputMode") == "Pipe":
        raise not_simulated(f"channel {name}: input mode Pipe")


def _violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """The constraints of ``shape`` and of its members that ``value`` breaks."""
    broken = list(_broken_constraints(value, shape))
    for constraint in broken:
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must {constraint}"
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _violations(value[name], member, _join(path, name))
    elif isinstance(shape, ListShape):
        for position, item in enumerate(value, start=1):
            yield from _violations(item, shape.member, f"{path}.{position}.member")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            for kind, each, member in (("key", key, shape.key), ("value", item, shape.value)):
                constraints = [f"Member must {text}" for text in _broken_constraints(each, member)]
                if constraints:
                    yield (
                        f"Value '{key}={item}' at '{path}' failed to satisfy constraint: "
                        f"Map {kind} must satisfy constraint: [{', '.join(constraints)}]"
                    )


def _broken_constraints(value: Any, shape: Shape) -> Iterator[str]:
    limits = shape.metadata
    size, what = None, ""
    if isinstance(value, str):
        size, what = len(value), "have length"
        enumeration: Sequence[str] = limits.get("enum", [])
        if enumeration and value not in enumeration:
            yield f"satisfy enum value set: [{', '.join(enumeration)}]"
        pattern = limits.get("pattern")
        if pattern and re.fullmatch(_python_pattern(pattern), value) is None:
            yield f"satisfy regular expression pattern: {pattern}"
    elif isinstance(value, (list, dict)) and not isinstance(shape, StructureShape):
        size, what = len(value), "have length"
    elif isinstance(value, int) and not isinstance(value, bool):
        size, what = value, "have value"
    if size is None:
        return
    if "max" in limits and size > limits["max"]:
        yield f"{what} less than or equal to {limits['max']}"
    if "min" in limits and size < limits["min"]:
        yield f"{what} greater than or equal to {limits['min']}"


@cache
def _python_pattern(pattern: str) -> str:
    for java, python in JAVA_CLASSES.items():
        pattern = pattern.replace(java, python)
    # Two patterns of metadata end in a repeated "$", which Python cannot read.
    return re.sub(r"\$\{\d+,\d+\}$", "$", pattern)


def _join(path: str, name: str) -> str:
    member = name[0].lower() + name[1:]
    return f"{path}.{member}" if path else member
