"""What is checked before anything is paid for: account, role, bucket, quota, instance, memory."""

from __future__ import annotations

import json
from typing import Any

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.distributed.share import share_of_step
from llm_engineering.errors import ConfigError, HardwareError, LaunchError
from llm_engineering.planning.cards import GIB, usable_bytes
from llm_engineering.planning.choice import choose_plans
from llm_engineering.planning.workload import Workload
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied
from llm_engineering.sagemaker.instances import Instance, require_gpu_instance
from llm_engineering.sagemaker.secret_scan import require_no_secrets


def check_locally(config: FinetuningConfig, settings: SagemakerSettings, text: str) -> None:
    """Everything that needs no network: instance types, and no secret in what would travel.

    Args:
        config: The resolved configuration.
        settings: Its ``sagemaker`` section.
        text: The configuration as YAML, as it would be sent.

    Raises:
        LaunchError: An instance type has no GPU, or none that computes in the configured type.
        SecretError: A value looks like a secret.
    """
    require_no_secrets("configuration", text)
    for name, value in settings.environment.items():
        require_no_secrets(f"sagemaker.environment.{name}", f"{name}={value}")
    for instance in gpu_instances(settings):
        if config.model.dtype == "bfloat16" and not instance.bfloat16:
            raise LaunchError(
                f"sagemaker.instance_types: {instance.name} ({instance.gpu}) has no bfloat16; choose "
                "another, or set model.dtype: float16"
            )
        if settings.image is None and instance.gpu.startswith("V100"):
            raise LaunchError(
                f"sagemaker.instance_types: {instance.name} ({instance.gpu}) is not supported by "
                "CUDA 13, which the pinned image brings; choose another type, or name an older "
                "sagemaker.image"
            )


def gpu_instances(settings: SagemakerSettings) -> list[Instance]:
    """The configured instance types, each known to have a GPU."""
    return [
        require_gpu_instance(name, "sagemaker.instance_types") for name in settings.instance_types
    ]


def job_dtype(config: FinetuningConfig, settings: SagemakerSettings) -> str:
    """The type of the frozen weights in the job: as configured, else what its GPUs compute in."""
    if config.model.dtype != "auto":
        return config.model.dtype
    return "bfloat16" if all(i.bfloat16 for i in gpu_instances(settings)) else "float16"


def check_memory(work: Workload, settings: SagemakerSettings) -> list[str]:
    """Refuse instance types whose GPU is too small by our estimate.

    Returns:
        A line for each type: what the job will choose there, what it needs, and what there is.

    Raises:
        LaunchError: One is too small; says by how much and what would help.
    """
    lines = []
    for instance in gpu_instances(settings):
        usable = usable_bytes(instance.gpu, instance.gpu_memory_gib)
        ranks = instance.gpus * settings.instance_count
        try:
            train = share_of_step(work.train, ranks)
        except ConfigError as error:
            raise LaunchError(
                f"sagemaker.instance_types: {settings.instance_count} x {instance.name} have "
                f"{ranks} GPUs, which all train: {error}"
            ) from None
        share = work.model_copy(update={"train": train})
        try:
            plan = choose_plans(share, ranks, card=instance.gpu, capacity=usable)[0]
        except HardwareError as reason:
            raise LaunchError(f"sagemaker.instance_types: {instance.name}: {reason}") from None
        need = plan.estimate.total / GIB if plan.estimate else 0.0
        each = f" on each of {ranks} GPUs" * (ranks > 1)
        lines.append(f"{instance.name}: {plan}, about {need:.1f} of {usable / GIB:.1f} GiB{each}")
    return lines


def check_account(aws: Aws, settings: SagemakerSettings) -> list[str]:
    """Ask AWS whether account, role, bucket and quotas are as configured.

    Returns:
        Warnings: what the caller is not permitted to look at.

    Raises:
        LaunchError: Something is certainly wrong.
    """
    warnings: list[str] = []
    _check_identity(aws)
    for check in (_check_role, _check_bucket, _check_quotas):
        try:
            check(aws, settings)
        except LaunchError:
            raise
        except Exception as error:
            if not is_denied(error):
                raise LaunchError(
                    f"AWS: {check.__name__.removeprefix('_check_')} cannot be checked "
                    f"({error_code(error)}: {error})"
                ) from error
            what = check.__name__.removeprefix("_check_")
            warnings.append(f"not permitted to look at the {what}; going on without that check")
    return warnings


def _check_identity(aws: Aws) -> None:
    try:
        aws.client("sts").get_caller_identity()
    except Exception as error:  # no credentials, wrong ones, or no network
        raise LaunchError(
            f"AWS does not know who you are ({error_code(error)}); log in, for example with "
            "`aws sso login`, or set AWS_PROFILE"
        ) from error


def _check_role(aws: Aws, settings: SagemakerSettings) -> None:
    name = settings.role.rsplit("/", 1)[-1]
    try:
        role = aws.client("iam").get_role(RoleName=name)["Role"]
    except Exception as error:
        if error_code(error) in ("NoSuchEntity", "NoSuchEntityException"):
            raise LaunchError(
                f"sagemaker.role: there is no role {name} in this account; make it with the "
                "policies under docs/sagemaker/"
            ) from None
        raise
    document: Any = role["AssumeRolePolicyDocument"]
    if "sagemaker.amazonaws.com" not in (
        document if isinstance(document, str) else json.dumps(document)
    ):
        raise LaunchError(
            f"sagemaker.role: {name} does not trust sagemaker.amazonaws.com; "
            "give it docs/sagemaker/trust-policy.json"
        )


def _check_bucket(aws: Aws, settings: SagemakerSettings) -> None:
    s3 = aws.client("s3")
    try:
        s3.head_bucket(Bucket=settings.bucket)
    except Exception as error:
        if error_code(error) in ("404", "NoSuchBucket", "NotFound"):
            raise LaunchError(
                f"sagemaker.bucket: there is no bucket {settings.bucket}; make it in {aws.region}"
            ) from None
        raise
    place = s3.get_bucket_location(Bucket=settings.bucket)["LocationConstraint"] or "us-east-1"
    if place != aws.region:
        raise LaunchError(
            f"sagemaker.bucket: {settings.bucket} is in {place}, the job would run in "
            f"{aws.region}; choose a bucket there, or set sagemaker.region: {place}"
        )


def _check_quotas(aws: Aws, settings: SagemakerSettings) -> None:
    names, needed = quota_names(settings), settings.instance_count
    pages = aws.client("service-quotas").get_paginator("list_service_quotas")
    values = {
        quota["QuotaName"]: quota["Value"]
        for page in pages.paginate(ServiceCode="sagemaker")
        for quota in page["Quotas"]
        if quota["QuotaName"] in names
    }
    for name in names:
        if values.get(name, needed) < needed:
            raise LaunchError(
                f"sagemaker.instance_types: the quota '{name}' is {values[name]:g} in {aws.region}; "
                f"ask for at least {needed} in Service Quotas (Amazon SageMaker), or choose another "
                "type"
            )


def quota_names(settings: SagemakerSettings) -> list[str]:
    """Names of the service quotas that a launch counts against."""
    use = "spot training job usage" if settings.spot.enabled else "training job usage"
    names = [f"{instance} for {use}" for instance in settings.instance_types]
    if settings.warm_pool_seconds:
        names += [f"{name} for training warm pool usage" for name in settings.instance_types]
    return names


def cost_ceiling(settings: SagemakerSettings) -> float | None:
    """The most the job can cost, in USD: the dearest type for max_run and the warm pool.

    None where a type has no ``price_per_hour``. Storage and transfers are not in it.
    """
    prices = [settings.price_per_hour.get(name) for name in settings.instance_types]
    if any(price is None for price in prices):
        return None
    hours = (settings.max_run_seconds + settings.warm_pool_seconds) / 3600
    return max(price for price in prices if price is not None) * hours * settings.instance_count
