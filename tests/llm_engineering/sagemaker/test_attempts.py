"""The jobs of a training are all found, permitted to list them or not."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker import attempts as finding
from llm_engineering.sagemaker.attempts import attempts_at, numbered

DIGEST = "0123456789ab"
FIRST = f"finetuning-{DIGEST}"
SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    region="us-east-1",
)


@pytest.fixture
def service():
    service = MemoryService()
    for number in (1, 2, 4, 5):  # the record of the third was deleted
        service.create_training_job(TrainingJobName=numbered(FIRST, number))
        service.move(numbered(FIRST, number), "Failed", FailureReason="CapacityError: x")
    service.create_training_job(TrainingJobName="finetuning-ffffffffffff")
    return service


def found(service):
    return sorted(
        attempt.number for attempt in attempts_at(MemoryAws(SETTINGS, service), FIRST, DIGEST)
    )


def test_all_of_them_and_no_other_trainings(service):
    assert found(service) == [1, 2, 4, 5]


def test_also_where_they_may_not_be_listed(service):
    service.always["list_training_jobs"] = client_error("AccessDeniedException")
    assert found(service) == [1, 2, 4, 5]


def test_also_one_that_the_list_does_not_show_yet(service):
    service.hidden_from_list = {numbered(FIRST, 5)}
    assert found(service) == [1, 2, 4, 5]


def test_one_under_another_prefix_is_the_same_training(service):
    """A colleague's sagemaker.job_prefix: it would be paid twice."""
    service.create_training_job(TrainingJobName=f"team-a-{DIGEST}-7")
    assert found(service) == [1, 2, 4, 5, 7]


def test_of_very_many_that_failed_the_newest_are_looked_at_and_all_that_did_not(service):
    service.create_training_job(TrainingJobName=numbered(FIRST, 6))
    service.move(numbered(FIRST, 6), "Completed")
    for number in range(7, 107):
        service.create_training_job(TrainingJobName=numbered(FIRST, number))
        service.move(numbered(FIRST, number), "Failed", FailureReason="CapacityError: x")
    numbers = found(service)
    assert 6 in numbers
    assert numbers[-50:] == list(range(57, 107))
    assert service.calls["describe_training_job"] < 60


def test_what_may_not_be_looked_at_is_a_permission_and_what_cannot_be_is_not(service, monkeypatch):
    monkeypatch.setattr(finding, "LOOK_UP_PATIENCE_S", 0.0)
    service.always["describe_training_job"] = client_error("AccessDeniedException")
    with pytest.raises(LaunchError, match="allow sagemaker:DescribeTrainingJob"):
        found(service)
    service.always["describe_training_job"] = client_error("ExpiredTokenException")
    with pytest.raises(AwsUnavailableError, match="credentials have expired"):
        found(service)
