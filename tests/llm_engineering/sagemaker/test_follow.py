"""Following a job: its log to the last line, and a stop that comes too late."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.follow import (
    JobFailedError,
    JobStoppedError,
    JobWaitedTooLongError,
    Pace,
    follow,
    stop,
)

SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    region="us-east-1",
)
PACE = Pace(poll_s=0.001, patience_s=0.1)
JOB = "finetuning-sft-0123456789ab"


@pytest.fixture
def service():
    service = MemoryService()
    service.create_training_job(
        TrainingJobName=JOB, ResourceConfig={"InstanceType": "ml.g5.2xlarge"}
    )
    service.train(JOB)
    return service


def follow_it(service, shown):
    return follow(MemoryAws(SETTINGS, service), JOB, show=shown.append, pace=PACE)


def test_lines_that_come_after_the_jobs_end_are_shown_and_told_with_the_error(service):
    """CloudWatch is late: the line that says why comes when the job has failed already."""
    service.logs[f"{JOB}/algo-1"] = ["step 1"]
    service.move(JOB, "Failed", FailureReason="AlgorithmError: exit code 1")
    streams, real = [], service.describe_log_streams

    def late(**asked):
        streams.append(asked)
        if len(streams) == 3:
            service.logs[f"{JOB}/algo-1"].append("the reason")
        return real(**asked)

    service.describe_log_streams = late
    shown = []
    with pytest.raises(JobFailedError, match="the reason"):
        follow_it(service, shown)
    assert shown[-1] == "the reason"


def test_a_log_that_may_not_be_read_does_not_lose_sight_of_the_job(service):
    service.always["describe_log_streams"] = client_error("AccessDeniedException")
    looks = []

    def complete(job):
        looks.append(job)
        if len(looks) == 3:
            service.move(JOB, "Completed")

    service.on_describe = complete
    shown = []
    assert follow_it(service, shown)["TrainingJobStatus"] == "Completed"
    assert len([line for line in shown if "allow logs:DescribeLogStreams" in line]) == 1


def test_stopping_a_job_that_has_ended_leaves_it_as_it_is(service):
    service.move(JOB, "Completed")
    stop(MemoryAws(SETTINGS, service), JOB)
    assert service.jobs[JOB]["TrainingJobStatus"] == "Completed"


def test_a_stop_that_is_not_permitted_is_an_error(service):
    service.always["stop_training_job"] = client_error("AccessDeniedException")
    with pytest.raises(Exception, match="AccessDenied"):
        stop(MemoryAws(SETTINGS, service), JOB)


def test_the_services_end_of_waiting_says_that_nothing_was_paid(service):
    from datetime import timedelta

    del service.jobs[JOB]["TrainingStartTime"]
    service.jobs[JOB]["StoppingCondition"] = {"MaxPendingTimeInSeconds": 7200}
    service.now += timedelta(hours=3)
    service.move(JOB, "Stopped")
    with pytest.raises(JobWaitedTooLongError, match=r"within 7200 s .* unpaid"):
        follow_it(service, [])


def test_a_stop_by_hand_is_no_waiting_too_long(service):
    service.move(JOB, "Stopped")
    with pytest.raises(JobStoppedError, match="its checkpoints are kept"):
        follow_it(service, [])
