"""What a job can cost at most, and has cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.cost import billable_seconds, ceiling_text, cost_of

BEGAN = datetime(2026, 11, 27, 12, tzinfo=UTC)


def settings(**changes) -> SagemakerSettings:
    return SagemakerSettings.model_validate(
        {
            "instance_types": ["ml.g5.2xlarge", "ml.g6.2xlarge"],
            "role": "arn:aws:iam::123456789012:role/x",
            "bucket": "bucket",
            "max_run_seconds": 7200,
            "price_per_hour": {"ml.g5.2xlarge": 1.5, "ml.g6.2xlarge": 1.2},
            **changes,
        }
    )


def job(**members):
    return {"ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 2}, **members}


def test_the_ceiling_is_that_of_all_instances():
    assert ceiling_text(settings()).startswith("3.00 USD (7200 s at the dearest")
    assert ceiling_text(settings(instance_count=3)).startswith("9.00 USD")
    assert ceiling_text(settings(warm_pool_seconds=3600)).startswith(
        "4.50 USD (7200 s and 3600 s of"
    )
    assert ceiling_text(settings(price_per_hour={})).startswith("unknown; give sagemaker.price")


@pytest.mark.parametrize(
    ("members", "seconds"),
    [
        ({}, 0),
        ({"BillableTimeInSeconds": 100, "TrainingTimeInSeconds": 300}, 100),
        ({"TrainingTimeInSeconds": 300}, 300),
        ({"TrainingStartTime": BEGAN, "TrainingEndTime": BEGAN + timedelta(seconds=50)}, 50),
    ],
)
def test_billed_seconds_are_awss_own_once_they_are_told(members, seconds):
    assert billable_seconds(job(**members)) == seconds
    assert cost_of(job(**members), settings()) == pytest.approx(2 * 1.5 * seconds / 3600)


def test_a_type_that_the_service_chose_has_its_own_price():
    chosen = {
        "InstancePreferences": [
            {"InstanceType": "ml.g5.2xlarge"},
            {"InstanceType": "ml.g6.2xlarge"},
        ],
        "SelectedInstanceType": "ml.g6.2xlarge",
        "InstanceCount": 1,
    }
    assert cost_of({"ResourceConfig": chosen, "BillableTimeInSeconds": 3600}, settings()) == 1.2
