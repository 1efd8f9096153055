"""SageMaker's Model Registry, on request: a model package for what a job has made.

Made once for each job, in a group of the configured name: the job's own tag says which it is. It waits
for approval there, whatever this project's gate decides of the version.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from llm_engineering.configuration.sagemaker import ModelPackageSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.model.finetuning.record import AdapterFolder, JobRecord
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied, passing_trouble

logger = logging.getLogger(__name__)

TAG = "model-package"
_NOT_THERE = ("ValidationException", "ResourceNotFound")
_NOTHING_SUBMITTED = "nothing was submitted"
_STATEMENTS = "(RegisterModels and MakeTheModelGroup in docs/sagemaker/launcher-options.json)"


def require_group(aws: Aws, settings: ModelPackageSettings) -> None:
    """Find the group, or make it: before a job is paid for that could not be registered after.

    Raises:
        LaunchError: It may be neither looked at nor made.
        AwsUnavailableError: AWS cannot be asked now.
    """
    client = aws.client("sagemaker")
    try:
        client.describe_model_package_group(ModelPackageGroupName=settings.group)
        return
    except Exception as error:
        if error_code(error) not in _NOT_THERE:
            raise _refusal(
                error, settings, "DescribeModelPackageGroup", _NOTHING_SUBMITTED
            ) from None
    try:
        client.create_model_package_group(
            ModelPackageGroupName=settings.group,
            ModelPackageGroupDescription="Made by llm-engineering-finetuning",
        )
    except Exception as error:
        raise _refusal(error, settings, "CreateModelPackageGroup", _NOTHING_SUBMITTED) from None
    logger.info("made the model package group %s", settings.group)


def register_package(
    aws: Aws,
    settings: ModelPackageSettings,
    job: JobRecord,
    adapter: AdapterFolder,
    run: str,
) -> str:
    """Register what a completed job made, unless it is registered already.

    Returns:
        The package's ARN.

    Raises:
        LaunchError: It may not be registered; the job's results are at home and stay.
        AwsUnavailableError: AWS cannot be asked now.
    """
    client = aws.client("sagemaker")
    try:
        tags = client.list_tags(ResourceArn=job.arn)["Tags"]
        there = {tag["Key"]: tag["Value"] for tag in tags}.get(TAG)
        if there is not None and f"/{settings.group}/" in there:
            logger.info("registered already: %s", there)
            return there
        made = client.create_model_package(**package_request(settings, job, adapter, run))
        arn = str(made["ModelPackageArn"])
        client.add_tags(ResourceArn=job.arn, Tags=[{"Key": TAG, "Value": arn}])
    except Exception as error:
        paid = (
            f"job {job.name} has completed, and nothing more is paid: the same command registers it"
        )
        raise _refusal(error, settings, "CreateModelPackage", paid) from None
    logger.info("registered %s; it waits for approval", arn)
    return arn


def package_request(
    settings: ModelPackageSettings, job: JobRecord, adapter: AdapterFolder, run: str
) -> dict[str, Any]:
    """The CreateModelPackage request; a second one of the same job names the same token."""
    token = hashlib.sha256(f"{settings.group} {job.arn}".encode()).hexdigest()[:32]
    return {
        "ModelPackageGroupName": settings.group,
        "ModelPackageDescription": f"{run}: {job.serving}"[:1024],
        "ModelApprovalStatus": "PendingManualApproval",
        "InferenceSpecification": {
            "Containers": [{"Image": settings.image, "ModelDataUrl": job.model_artifact}],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json", "application/jsonlines"],
        },
        "CustomerMetadataProperties": {
            "run": run,
            "job": job.name,
            "adapter_digest": adapter.digest,
        },
        "ClientToken": token,
    }


def _refusal(
    error: Exception, settings: ModelPackageSettings, operation: str, stand: str
) -> LaunchError:
    where = f"sagemaker.model_package.group: {settings.group}"
    trouble = passing_trouble(error)
    if trouble is not None:
        return AwsUnavailableError(f"{where}: {trouble} ({error_code(error)}); {stand}")
    if is_denied(error):
        return LaunchError(f"{where}: allow sagemaker:{operation} {_STATEMENTS}; {stand}")
    return LaunchError(f"{where}: AWS refuses it ({error_code(error)}): {error}; {stand}")
