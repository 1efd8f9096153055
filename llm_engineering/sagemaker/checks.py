"""What is checked before anything is paid for: account, role, bucket, quota, instance, memory, disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from llm_engineering.configuration.export import quantised_by_hand
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.distributed.share import share_of_step
from llm_engineering.errors import ConfigError, HardwareError, LaunchError, SecretError
from llm_engineering.export.gguf import K_QUANTS, require_converter
from llm_engineering.model.base_model import is_hub_model
from llm_engineering.planning.cards import FP8_CARDS, GIB, usable_bytes
from llm_engineering.planning.choice import choose_plans
from llm_engineering.planning.workload import Workload
from llm_engineering.sagemaker.aws import Aws, error_code, is_denied
from llm_engineering.sagemaker.instances import Instance, require_gpu_instance
from llm_engineering.sagemaker.request import EBS_GB
from llm_engineering.sagemaker.secret_scan import require_no_secrets
from llm_engineering.sagemaker.serving_layout import unservable

_OLD_NAMES = {None: "us-east-1", "EU": "eu-west-1"}
"""Where GetBucketLocation says something else than the region's name."""


def check_locally(config: FinetuningConfig, settings: SagemakerSettings, text: str) -> None:
    """Everything that needs no network: instances, exports, trackers, no secret in what travels.

    Args:
        config: The resolved configuration.
        settings: Its ``sagemaker`` section.
        text: The configuration as YAML, as it would be sent.

    Raises:
        ConfigError: A tracker cannot be reached from a job.
        LaunchError: An instance type has no GPU, or none that computes in the configured type, or a
            smaller volume than asked for; an export or a base model cannot be had in a job.
        SecretError: A value looks like a secret.
        SetupError: A GGUF is to be exported, and its converter is not here to travel.
    """
    for name, value in settings.environment.items():
        _require_no_secret_variable(name, value)
    require_no_secrets("configuration", text)
    if config.export.gguf in K_QUANTS:
        raise LaunchError(
            f"export.gguf: {config.export.gguf}: llama.cpp's quantiser does not travel to a job; set q8_0, "
            f"or {quantised_by_hand(config.export.gguf)}"
        )
    if config.export.gguf:
        require_converter(config.export.gguf)  # it travels with the source
    _check_trackers(config, settings)
    problem = unservable(config)
    if settings.model_package is not None and problem is not None:
        raise LaunchError(f"sagemaker.model_package: {problem}; or leave model_package out")
    if settings.network_isolation and settings.base_model is None and is_hub_model(config.model):
        raise LaunchError(
            f"sagemaker.network_isolation: the job could not fetch {config.model.id} from the Hub; "
            "give sagemaker.base_model, an S3 folder with its files, or set model.id to a folder"
        )
    for instance in gpu_instances(settings):
        _check_volume(instance, settings)
        if config.model.dtype == "bfloat16" and not instance.bfloat16:
            raise LaunchError(
                f"sagemaker.instance_types: {instance.name} ({instance.gpu}) has no bfloat16; choose "
                "another, or set model.dtype: float16"
            )
        if config.model.quantisation == "fp8" and instance.gpu not in FP8_CARDS:
            raise LaunchError(
                f"sagemaker.instance_types: {instance.name} ({instance.gpu}) has no FP8; choose one "
                f"with {', '.join(FP8_CARDS)}, or set model.quantisation: nf4 or none"
            )
        if settings.image is None and instance.gpu.startswith("V100"):
            raise LaunchError(
                f"sagemaker.instance_types: {instance.name} ({instance.gpu}) is not supported by "
                "CUDA 13, which the pinned image brings; choose another type, or name an older "
                "sagemaker.image"
            )


def _check_trackers(config: FinetuningConfig, settings: SagemakerSettings) -> None:
    others = [name for name in config.train.trackers if name != "mlflow"]
    if others:
        raise ConfigError(
            f"train.trackers: {', '.join(others)} cannot be logged to from a SageMaker job, only "
            "mlflow, to the managed server that sagemaker.mlflow names; leave it out (ZenML and "
            "CloudWatch show the job's figures)"
        )
    if config.train.trackers and settings.mlflow is None:
        raise ConfigError(
            "train.trackers: mlflow in a SageMaker job needs sagemaker.mlflow, the ARN of a managed "
            "MLflow server; give it, or set train.trackers: []"
        )
    if settings.mlflow is not None and not config.train.trackers:
        raise ConfigError(
            "sagemaker.mlflow: nothing would be logged to it; set train.trackers: [mlflow], or leave "
            "it out"
        )


def _require_no_secret_variable(name: str, value: str) -> None:
    """A token in pip's own index address has a cure of its own: secrets are read after pip."""
    try:
        require_no_secrets(f"sagemaker.environment.{name}", f"{name}={value}")
    except SecretError as error:
        if not name.startswith("PIP_"):
            raise
        raise SecretError(
            f"{error}\nfor packages of a private index it would come too late, since a job reads its "
            "secrets after pip has run: name a CodeArtifact repository "
            "(sagemaker.packages.codeartifact) or an S3 folder of wheels "
            "(sagemaker.packages.wheelhouse)"
        ) from None


def _check_volume(instance: Instance, settings: SagemakerSettings) -> None:
    wanted = settings.volume_gb
    if wanted is not None and instance.storage_gb is not None and wanted > instance.storage_gb:
        raise LaunchError(
            f"sagemaker.volume_gb: {wanted}, but {instance.name} has a local store of "
            f"{instance.storage_gb} GB, which cannot be enlarged; lower it, or choose another type"
        )


def check_storage(parameters: int, settings: SagemakerSettings, *, merged: bool) -> list[str]:
    """Refuse instance types whose disk is too small by our estimate.

    The base model's files take two bytes a parameter; a merged model two more, and its archive, for
    which the service has no other place, two again. Checkpoints of an adapter are small beside them.

    Args:
        parameters: Of the base model.
        settings: For the volume.
        merged: Whether a merged model is exported too.

    Returns:
        A line for each type: what is needed, and what there is.

    Raises:
        LaunchError: One is too small; says by how much and what would help.
    """
    need = parameters * 2 * (3 if merged else 1) / 1e9
    lines = []
    for instance in gpu_instances(settings):
        size = instance.storage_gb or settings.volume_gb or EBS_GB
        if need > size:
            local = instance.storage_gb is not None
            cure = "choose a larger type" if local else "raise sagemaker.volume_gb"
            raise LaunchError(
                f"sagemaker.instance_types: {instance.name} has {size} GB of storage, the job needs "
                f"about {need:.0f} GB{' with its merged model' * merged}; {cure}"
            )
        lines.append(f"{instance.name}: about {need:.1f} of {size} GB of storage")
    return lines


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
    return _checked(aws, settings, (_check_role, _check_bucket, _check_quotas))


def check_deployer(aws: Aws, settings: SagemakerSettings) -> list[str]:
    """As ``check_account``, without the quotas, which are a training's.

    Raises:
        LaunchError: Something is certainly wrong.
    """
    return _checked(aws, settings, (_check_role, _check_bucket))


def _checked(
    aws: Aws,
    settings: SagemakerSettings,
    checks: Sequence[Callable[[Aws, SagemakerSettings], list[str]]],
) -> list[str]:
    warnings: list[str] = []
    _check_identity(aws, settings)
    for check in checks:
        try:
            warnings += check(aws, settings)
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


def _check_identity(aws: Aws, settings: SagemakerSettings) -> None:
    try:
        account = aws.client("sts").get_caller_identity()["Account"]
    except Exception as error:  # no credentials, wrong ones, or no network
        raise LaunchError(
            f"AWS does not know who you are ({error_code(error)}); log in, for example with "
            "`aws sso login`, or set AWS_PROFILE"
        ) from error
    if f":{account}:" not in settings.role:
        raise LaunchError(
            f"sagemaker.role: {settings.role} is not of account {account}, in which you are logged "
            "in, and a job can only have a role of its own account; correct it, or set AWS_PROFILE"
        )


def _check_role(aws: Aws, settings: SagemakerSettings) -> list[str]:
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
    return []


def _check_bucket(aws: Aws, settings: SagemakerSettings) -> list[str]:
    s3 = aws.client("s3")
    try:
        s3.head_bucket(Bucket=settings.bucket)
    except Exception as error:
        if error_code(error) in ("404", "NoSuchBucket", "NotFound"):
            raise LaunchError(
                f"sagemaker.bucket: there is no bucket {settings.bucket}; make it in {aws.region}"
            ) from None
        raise
    place = s3.get_bucket_location(Bucket=settings.bucket)["LocationConstraint"]
    place = _OLD_NAMES.get(place, place)
    if place != aws.region:
        raise LaunchError(
            f"sagemaker.bucket: {settings.bucket} is in {place}, the job would run in "
            f"{aws.region}; choose a bucket there, or set sagemaker.region: {place}"
        )
    return []


def _check_quotas(aws: Aws, settings: SagemakerSettings) -> list[str]:
    return types_with_quota(aws, settings)[1]


def types_with_quota(aws: Aws, settings: SagemakerSettings) -> tuple[list[str], list[str]]:
    """The instance types that the account may use, in order of preference, and what to warn of.

    A quota that was never raised is not among the applied ones: then AWS's default counts.

    Raises:
        LaunchError: There is none: says each quota, and what to ask for.
        ClientError: AWS does not let the caller look.
    """
    names = quota_names(settings)
    wanted = {name for several in names.values() for name in several}
    values = _quota_values(aws, "list_aws_default_service_quotas", wanted)
    values |= _quota_values(aws, "list_service_quotas", wanted)
    kept, lacking, warnings = [], [], []
    for instance, several in names.items():
        low = [name for name in several if values.get(name, inf) < settings.instance_count]
        if low:
            lacking += [f"the quota '{name}' is {values[name]:g} in {aws.region}" for name in low]
            continue
        kept.append(instance)
        warnings += [
            f"Service Quotas has no '{name}'; going on without that check"
            for name in several
            if name not in values
        ]
    if not kept:
        raise LaunchError(
            f"sagemaker.instance_types: {'; '.join(lacking)}; ask for at least "
            f"{settings.instance_count} in Service Quotas (Amazon SageMaker), or choose another type"
        )
    if lacking:
        warnings.append(f"{'; '.join(lacking)}: trying only {', '.join(kept)}")
    return kept, warnings


def _quota_values(aws: Aws, operation: str, names: set[str]) -> dict[str, float]:
    pages = aws.client("service-quotas").get_paginator(operation)
    return {
        quota["QuotaName"]: quota["Value"]
        for page in pages.paginate(ServiceCode="sagemaker")
        for quota in page["Quotas"]
        if quota["QuotaName"] in names
    }


def quota_names(settings: SagemakerSettings) -> dict[str, list[str]]:
    """Names of the service quotas that a launch counts against, by instance type."""
    use = "spot training job usage" if settings.spot.enabled else "training job usage"
    uses = [use, *(["training warm pool usage"] if settings.warm_pool_seconds else [])]
    return {
        instance: [f"{instance} for {use}" for use in uses] for instance in settings.instance_types
    }


def cost_ceiling(settings: SagemakerSettings) -> float | None:
    """The most the job can cost, in USD: the dearest type for max_run and the warm pool.

    None where a type has no ``price_per_hour``. Storage and transfers are not in it.
    """
    prices = [settings.price_per_hour.get(name) for name in settings.instance_types]
    if any(price is None for price in prices):
        return None
    hours = (settings.max_run_seconds + settings.warm_pool_seconds) / 3600
    return max(price for price in prices if price is not None) * hours * settings.instance_count
