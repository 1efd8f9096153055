"""Service quotas of SageMaker training: what CreateTrainingJob checks and Service Quotas lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from sagemaker_service.errors import ServiceError
from sagemaker_service.jobs import ACCOUNT, IN_PROGRESS, Job
from sagemaker_service.limits import sagemaker_model
from sagemaker_service.wire import ApiCall

DEFAULT_QUOTA = 4.0
USES = ("training job usage", "spot training job usage", "training warm pool usage")
PAGE = 100


def quota_name(instance_type: str, use: str) -> str:
    """As the console names it, for one of ``USES``."""
    return f"{instance_type} for {use}"


def quota_code(name: str) -> str:
    """A made-up code in the real form; the real ones cannot be derived from the name."""
    return f"L-{hashlib.md5(name.encode()).hexdigest()[:8].upper()}"


def check_quotas(job: Job, jobs: Iterable[Job], quotas: Mapping[str, float]) -> None:
    """Raise ResourceLimitExceeded if each of the job's instance types is beyond a quota."""
    refusals = []
    for instance_type in job.instance_types:
        try:
            _check_type(job, instance_type, jobs, quotas)
        except ServiceError as refusal:
            refusals.append(refusal)
    if len(refusals) == len(job.instance_types):
        raise refusals[0]


def _check_type(
    job: Job, instance_type: str, jobs: Iterable[Job], quotas: Mapping[str, float]
) -> None:
    count = len(job.hosts)
    uses = [USES[1] if job.is_spot else USES[0]] + ([USES[2]] if job.keep_alive_s else [])
    running = [
        other
        for other in jobs
        if other.status in IN_PROGRESS
        and (other.selected_instance_type or other.instance_types[0]) == instance_type
        and other.is_spot == job.is_spot
    ]
    for use in uses:
        name = quota_name(instance_type, use)
        limit = quotas.get(name, DEFAULT_QUOTA)
        used = 0 if use == USES[2] else sum(len(other.hosts) for other in running)
        if used + count > limit:
            raise ServiceError(
                "ResourceLimitExceeded",
                f"The account-level service limit '{name}' is {limit:g} Instances, with current "
                f"utilization of {used} Instances and a request delta of {count} Instances. Please use "
                "AWS Service Quotas to request an increase for this quota. If AWS Service Quotas "
                "is not available, contact AWS support to request an increase for this quota.",
            )


def list_quotas(call: ApiCall, quotas: Mapping[str, float]) -> dict[str, Any]:
    """ListServiceQuotas: the values applied to the account, by pages of at most 100.

    As in the real service, a quota that still has its default is not listed: here those are the
    quotas of types that the faults do not name.
    """
    names = [name for name in _all_names() if name in quotas]
    return _page(call, names, quotas)


def list_default_quotas(call: ApiCall, defaults: Mapping[str, float | None]) -> dict[str, Any]:
    """ListAWSDefaultServiceQuotas: what AWS gives every account."""
    names = [name for name in _all_names() if defaults.get(name, DEFAULT_QUOTA) is not None]
    return _page(call, names, {n: v for n, v in defaults.items() if v is not None})


def _page(call: ApiCall, names: list[str], quotas: Mapping[str, float]) -> dict[str, Any]:
    _check_service(call)
    start = int(call.parameters.get("NextToken", 0))
    end = start + min(call.parameters.get("MaxResults", PAGE), PAGE)
    page = [_quota(name, quotas, call.region) for name in names[start:end]]
    return {"Quotas": page} | ({"NextToken": str(end)} if end < len(names) else {})


def get_quota(call: ApiCall, quotas: Mapping[str, float]) -> dict[str, Any]:
    """GetServiceQuota, by code."""
    _check_service(call)
    for name in _all_names():
        if quota_code(name) == call.parameters.get("QuotaCode"):
            return {"Quota": _quota(name, quotas, call.region)}
    raise ServiceError("NoSuchResourceException", "The request failed because no quota was found.")


def _check_service(call: ApiCall) -> None:
    if call.parameters.get("ServiceCode") != "sagemaker":
        raise ServiceError("NoSuchResourceException", "The requested service is not simulated.")


def _all_names() -> list[str]:
    types = sagemaker_model().shape_for("TrainingInstanceType").metadata["enum"]
    return [quota_name(each, use) for use in USES for each in sorted(types)]


def _quota(name: str, quotas: Mapping[str, float], region: str) -> dict[str, Any]:
    code = quota_code(name)
    return {
        "ServiceCode": "sagemaker",
        "ServiceName": "Amazon SageMaker",
        "QuotaArn": f"arn:aws:servicequotas:{region}:{ACCOUNT}:sagemaker/{code}",
        "QuotaCode": code,
        "QuotaName": name,
        "Value": quotas.get(name, DEFAULT_QUOTA),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
