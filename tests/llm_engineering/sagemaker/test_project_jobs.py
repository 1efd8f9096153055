"""The list of the project's jobs, and a stop by name."""

from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker import project_jobs as listing
from llm_engineering.sagemaker.project_jobs import project_jobs, stop_job

SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    prefix="ft",
    region="us-east-1",
    price_per_hour={"ml.g5.2xlarge": 1.5},
)


@pytest.fixture
def service():
    service = MemoryService()
    for number in range(1, 5):
        service.now += timedelta(hours=1)
        service.create_training_job(
            TrainingJobName=f"finetuning-{number}",
            ResourceConfig={"InstanceType": "ml.g5.2xlarge", "InstanceCount": 2},
            OutputDataConfig={"S3OutputPath": "s3://bucket/ft/results"},
            Tags=[
                {"Key": "run", "Value": f"run-{number}"},
                {"Key": "configuration", "Value": f"c{number % 2}"},
            ],
        )
    return service


@pytest.fixture
def aws(service):
    return MemoryAws(SETTINGS, service)


def test_the_newest_come_first_with_state_run_cost_and_configuration(service, aws):
    service.move("finetuning-1", "Failed", FailureReason="AlgorithmError: x")
    service.move("finetuning-2", "Completed", BillableTimeInSeconds=3600)
    service.move("finetuning-3", "Stopped", "MaxRuntimeExceeded", TrainingTimeInSeconds=1800)
    jobs = project_jobs(aws, SETTINGS)
    assert [job.name for job in jobs] == [f"finetuning-{n}" for n in (4, 3, 2, 1)]
    assert [job.state for job in jobs] == [
        "InProgress: Starting",
        "stopped after sagemaker.max_run_seconds",
        "completed",
        "failed",
    ]
    assert [job.cost_usd for job in jobs] == [0, 1.5, 3.0, 0], "of two instances at 1.50 USD"
    assert jobs[0].run == "run-4"
    assert jobs[0].instance == "ml.g5.2xlarge x 2"
    assert [job.answers_to("c1") for job in jobs] == [False, True, False, True]
    assert [job.is_live for job in jobs] == [True, False, False, False]
    assert [job.name for job in project_jobs(aws, SETTINGS, most=3)] == [
        f"finetuning-{n}" for n in (4, 3, 2)
    ]


def test_a_running_jobs_cost_is_that_of_the_time_since_it_began(service, aws, monkeypatch):
    from llm_engineering.sagemaker import cost

    service.train("finetuning-4")

    class Clock:
        @staticmethod
        def now(zone):
            return service.now + timedelta(minutes=30)

    monkeypatch.setattr(cost, "datetime", Clock)
    assert project_jobs(aws, SETTINGS)[0].cost_usd == pytest.approx(2 * 1.5 / 2)


def test_without_a_price_there_is_no_cost(service, aws):
    unpriced = SETTINGS.model_copy(update={"price_per_hour": {}})
    assert [job.cost_usd for job in project_jobs(aws, unpriced)] == [None] * 4


def test_listing_that_is_not_permitted_names_the_permission(service, aws):
    service.always["list_training_jobs"] = client_error("AccessDeniedException")
    with pytest.raises(LaunchError, match="allow sagemaker:ListTrainingJobs"):
        project_jobs(aws, SETTINGS)


def test_tags_that_may_not_be_read_leave_their_columns_empty(service, aws):
    service.always["list_tags"] = client_error("AccessDeniedException")
    assert [job.run for job in project_jobs(aws, SETTINGS)] == [""] * 4


def test_a_job_is_stopped_by_name(service, aws):
    assert stop_job(aws, SETTINGS, "finetuning-3").is_live
    assert service.jobs["finetuning-3"]["TrainingJobStatus"] == "Stopping"


def test_a_job_that_has_ended_is_left_as_it_is(service, aws):
    service.move("finetuning-3", "Completed")
    assert not stop_job(aws, SETTINGS, "finetuning-3").is_live
    assert service.calls["stop_training_job"] == 0


def test_no_such_job(aws):
    with pytest.raises(LaunchError, match="--stop nowhere: there is no such job in us-east-1"):
        stop_job(aws, SETTINGS, "nowhere")


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        ("AccessDeniedException", LaunchError, "allow sagemaker:StopTrainingJob"),
        ("ExpiredTokenException", AwsUnavailableError, "credentials have expired"),
    ],
)
def test_a_stop_that_fails_says_that_the_job_goes_on(service, aws, monkeypatch, code, kind, says):
    monkeypatch.setattr(listing, "LOOK_UP_PATIENCE_S", 0.0)
    service.always["stop_training_job"] = client_error(code)
    with pytest.raises(kind, match=says) as error:
        stop_job(aws, SETTINGS, "finetuning-3")
    assert str(error.value).startswith("job finetuning-3 is NOT stopped, and goes on")
