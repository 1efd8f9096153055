"""The three requests that make an endpoint: model, endpoint configuration, endpoint.

Named after what they hold, so that the same deployment finds its own again, and another one gets a
configuration of its own, which is what SageMaker moves an endpoint to without a pause (blue/green).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from llm_engineering.configuration.sagemaker import EndpointSettings, SagemakerSettings
from llm_engineering.errors import ConfigError, LaunchError
from llm_engineering.sagemaker.instances import INSTANCES
from llm_engineering.sagemaker.request import validate_request

VARIANT = "AllTraffic"
TAG = "deployed-by"
OWNER = "llm-engineering-finetuning"
_LONGEST_NAME = 63
_DIGEST = 12


@dataclass(frozen=True)
class Deployment:
    """What an endpoint is made of; ``name`` is the endpoint's, ``part`` that of the other two."""

    name: str
    part: str
    model: dict[str, Any]
    config: dict[str, Any]
    endpoint: dict[str, Any]


def endpoint_settings(settings: SagemakerSettings) -> EndpointSettings:
    """The section ``sagemaker.endpoint``.

    Raises:
        ConfigError: There is none.
    """
    if settings.endpoint is None:
        raise ConfigError(
            "sagemaker.endpoint: the configuration has no such section; --deploy sagemaker needs "
            "instance_type and image (docs/serving.md)"
        )
    return settings.endpoint


def endpoint_name(settings: SagemakerSettings, model: str) -> str:
    """``sagemaker.endpoint.name``, else the jobs' prefix and the registered model's name."""
    if settings.endpoint is not None and settings.endpoint.name:
        return settings.endpoint.name
    plain = re.sub(r"[^A-Za-z0-9]+", "-", f"{settings.job_prefix}-{model}").strip("-")
    return plain[: _LONGEST_NAME - _DIGEST - 1].strip("-")


def model_key(digest: str) -> str:
    """Where below ``sagemaker.prefix`` the files of a deployment lie."""
    return f"endpoints/{digest[:_DIGEST]}"


def build_deployment(
    settings: SagemakerSettings, name: str, files_digest: str, tags: dict[str, str]
) -> Deployment:
    """The requests, valid by botocore's model of the API.

    Args:
        settings: Role, network, key, tags, and the endpoint's own.
        name: Of the endpoint.
        files_digest: SHA-256 over the files that the container gets.
        tags: Of all three, beside the configured ones.

    Raises:
        LaunchError: Names each member that the API does not allow.
    """
    asked = endpoint_settings(settings)
    data = f"s3://{settings.bucket}/{settings.prefix}/{model_key(files_digest)}/"
    listed = [
        {"Key": key, "Value": value}
        for key, value in sorted({**settings.tags, **tags, TAG: OWNER}.items())
    ]
    model: dict[str, Any] = {
        "ExecutionRoleArn": settings.role,
        "PrimaryContainer": {
            "Image": asked.image,
            # Not packed: nothing is to be unpacked at each start.
            "ModelDataSource": {
                "S3DataSource": {
                    "S3Uri": data,
                    "S3DataType": "S3Prefix",
                    "CompressionType": "None",
                }
            },
            "Environment": dict(asked.environment),
        },
        "EnableNetworkIsolation": False,
    }
    if settings.vpc is not None:
        model["VpcConfig"] = {
            "Subnets": settings.vpc.subnets,
            "SecurityGroupIds": settings.vpc.security_groups,
        }
    variant: dict[str, Any] = {
        "VariantName": VARIANT,
        "InstanceType": asked.instance_type,
        "InitialInstanceCount": asked.instance_count,
        "InitialVariantWeight": 1.0,
        "ContainerStartupHealthCheckTimeoutInSeconds": asked.startup_seconds,
        "ModelDataDownloadTimeoutInSeconds": asked.startup_seconds,
    }
    if asked.inference_ami is not None:
        variant["InferenceAmiVersion"] = asked.inference_ami
    config: dict[str, Any] = {"ProductionVariants": [variant]}
    known = INSTANCES.get(asked.instance_type)
    if settings.kms_key and known is not None and known.storage_gb is None:
        config["KmsKeyId"] = settings.kms_key  # a local store has its own key
    text = json.dumps([name, model, config], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
    part = f"{name[: _LONGEST_NAME - _DIGEST - 1].rstrip('-')}-{digest}"
    variant["ModelName"] = part
    deployment = Deployment(
        name=name,
        part=part,
        model={"ModelName": part, **model, "Tags": listed},
        config={"EndpointConfigName": part, **config, "Tags": listed},
        endpoint={"EndpointName": name, "EndpointConfigName": part, "Tags": listed},
    )
    for operation, request in (
        ("CreateModel", deployment.model),
        ("CreateEndpointConfig", deployment.config),
        ("CreateEndpoint", deployment.endpoint),
    ):
        try:
            validate_request(request, operation)
        except LaunchError as error:
            raise LaunchError(f"sagemaker.endpoint: {operation}: {error}") from None
    return deployment
