"""The CreateTrainingJob request, made by the SageMaker SDK and sent as it stands by boto3."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.aws import require_sagemaker_group

COMMAND = "exec python3 -m llm_engineering.sagemaker.job"
"""``exec``, so that the service's SIGTERM reaches the job and not a shell around it."""
CHECKPOINTS = "/opt/ml/checkpoints"
PYTORCH_IMAGE = "2.9.0"
"""Version of the pinned PyTorch training image; it brings torch, CUDA, boto3 and AWS's own tools."""
MAX_NAME = 63
_NO_TELEMETRY = {
    "SchemaVersion": "1.0",
    "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
}


@dataclass(frozen=True)
class JobInputs:
    """What the job reads: S3 prefixes, and the staged source that the SDK uploads."""

    config: str
    dataset: str
    base_model: str | None
    source: Path


def job_name(model: str, data: str, digest: str, attempt: int) -> str:
    """A job's name: what it trains, and the digest of everything that decides the result.

    The same training always has the same name, so that it cannot be paid for twice by accident.

    Returns:
        At most 63 characters of letters, digits and single hyphens, as the service demands.
    """
    tail = digest[:12] + (f"-{attempt}" if attempt > 1 else "")
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{model}-{data}").strip("-")
    return f"{words[: MAX_NAME - len(tail) - 1].rstrip('-')}-{tail}"


def image_uri(settings: SagemakerSettings, region: str) -> str:
    """The configured image, else AWS's PyTorch training image of the pinned version."""
    if settings.image is not None:
        return settings.image
    require_sagemaker_group()
    from sagemaker.core import image_uris

    try:
        return str(
            image_uris.retrieve(
                "pytorch",
                region=region,
                version=PYTORCH_IMAGE,
                py_version=f"py{settings.image_python.replace('.', '')}",
                instance_type=settings.instance_types[0],
                image_scope="training",
            )
        )
    except ValueError as error:
        raise LaunchError(f"sagemaker.image: no pinned image ({error}); name one") from None


def build_request(
    settings: SagemakerSettings,
    session: Any,
    region: str,
    *,
    name: str,
    instance_type: str,
    inputs: JobInputs,
    tags: dict[str, str],
    checkpoints: str,
    upload: bool,
) -> dict[str, Any]:
    """Make the request, as boto3's ``create_training_job`` takes it.

    Args:
        settings: Where and on what the job runs.
        session: A boto3 session.
        region: Its region.
        name: The job's exact name.
        instance_type: One of the configured types.
        inputs: Input channels and source.
        tags: Of the job; the configured ones are added.
        checkpoints: Name of the S3 folder of checkpoints; jobs that share it go on from each
            other's.
        upload: Whether to upload the source now; without it nothing is sent anywhere.
    """
    require_sagemaker_group()
    os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")  # checks.py has done it
    from sagemaker.train import ModelTrainer
    from sagemaker.train.configs import (
        CheckpointConfig,
        Compute,
        InputData,
        Networking,
        OutputDataConfig,
        SourceCode,
        StoppingCondition,
        Tag,
    )

    home = f"s3://{settings.bucket}/{settings.prefix}"
    channels = {"config": inputs.config, "dataset": inputs.dataset}
    if inputs.base_model is not None:
        channels["base_model"] = inputs.base_model
    trainer = ModelTrainer(
        sagemaker_session=_sdk_session(settings, session, upload=upload),
        role=settings.role,
        base_job_name=name,
        training_image=image_uri(settings, region),
        source_code=SourceCode(
            source_dir=str(inputs.source), requirements="requirements.txt", command=COMMAND
        ),
        compute=Compute(
            instance_type=instance_type,
            instance_count=settings.instance_count,
            volume_size_in_gb=settings.volume_gb,
            volume_kms_key_id=settings.kms_key,
            enable_managed_spot_training=settings.spot.enabled,
            keep_alive_period_in_seconds=settings.warm_pool_seconds or None,
        ),
        stopping_condition=StoppingCondition(
            max_runtime_in_seconds=settings.max_run_seconds,
            max_wait_time_in_seconds=settings.spot.max_wait_seconds
            if settings.spot.enabled
            else None,
        ),
        output_data_config=OutputDataConfig(
            s3_output_path=f"{home}/results", kms_key_id=settings.kms_key
        ),
        checkpoint_config=CheckpointConfig(
            s3_uri=f"{home}/checkpoints/{checkpoints}", local_path=CHECKPOINTS
        ),
        networking=None
        if settings.vpc is None
        else Networking(
            subnets=settings.vpc.subnets, security_group_ids=settings.vpc.security_groups
        ),
        # The requirements are the lock's, complete but for what the image brings: resolving
        # them anew would replace the image's PyTorch.
        environment={"PIP_NO_DEPS": "1", **settings.environment},
        tags=[Tag(key=k, value=v) for k, v in sorted({**settings.tags, **tags}.items())],
        input_data_config=[
            InputData(channel_name=channel, data_source=uri) for channel, uri in channels.items()
        ],
        input_s3_key_prefix=f"{settings.prefix}/jobs",
    )
    # The SDK's train() would send a name with a time in it, and wait in its own way.
    request: dict[str, Any] = trainer._create_training_job_args(boto3=True)
    request["TrainingJobName"] = name
    return {key: value for key, value in request.items() if value not in (None, {}, [])}


def _sdk_session(settings: SagemakerSettings, session: Any, *, upload: bool) -> Any:
    from sagemaker.core.helper.session_helper import Session

    class OwnBucketSession(Session):
        """Uploads to the configured bucket, which must exist: the SDK would create its own."""

        def default_bucket(self) -> str:
            return settings.bucket

        def upload_data(
            self, path: str, bucket: str, key_prefix: str, *args: Any, **kw: Any
        ) -> Any:
            if not upload:
                return f"s3://{bucket}/{key_prefix}"
            return super().upload_data(path, bucket, key_prefix, *args, **kw)

    return OwnBucketSession(
        boto_session=session, default_bucket=settings.bucket, sagemaker_config=_NO_TELEMETRY
    )
