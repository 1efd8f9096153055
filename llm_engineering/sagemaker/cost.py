"""What a job can cost at most, and what it has cost so far, in words and USD."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.checks import cost_ceiling
from llm_engineering.sagemaker.job_states import instance_of


def ceiling_text(settings: SagemakerSettings) -> str:
    """The cost ceiling in words."""
    ceiling = cost_ceiling(settings)
    if ceiling is None:
        return "unknown; give sagemaker.price_per_hour for each instance type"
    warm = f" and {settings.warm_pool_seconds} s of warm pool" if settings.warm_pool_seconds else ""
    return (
        f"{ceiling:,.2f} USD ({settings.max_run_seconds} s{warm} at the dearest type's price; "
        "storage and transfers come on top)"
    )


def cost_of(job: Mapping[str, Any], settings: SagemakerSettings) -> float | None:
    """What a job has cost so far in USD, storage and transfers aside; None without a price.

    Billable seconds once AWS tells them; before, the seconds since training began.

    Args:
        job: As DescribeTrainingJob gives it.
        settings: For the price of its instance type.
    """
    price = settings.price_per_hour.get(instance_of(job))
    if price is None:
        return None
    instances = (job.get("ResourceConfig") or {}).get("InstanceCount") or 1
    return price * instances * billable_seconds(job) / 3600


def billable_seconds(job: Mapping[str, Any]) -> int:
    """Seconds that a job is billed for, so far as is known."""
    told = job.get("BillableTimeInSeconds") or job.get("TrainingTimeInSeconds")
    began = job.get("TrainingStartTime")
    if told or began is None:
        return int(told or 0)
    end = job.get("TrainingEndTime") or datetime.now(UTC)
    return max(0, int((end - began).total_seconds()))
