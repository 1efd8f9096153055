"""What changed without the user's doing is said before another job is paid."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.identity import JobIdentity
from llm_engineering.sagemaker.near_jobs import near_jobs

SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    prefix="ft",
    region="us-east-1",
)
PARTS = {"data": "1", "settings": "2", "image": "3", "code": "4", "lock": "5"}
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training@sha256:0"


@pytest.fixture
def service():
    return MemoryService()


def near(service, status, parts, trained=True):
    identity = JobIdentity({**PARTS, **parts})
    name = f"finetuning-sft-{identity.digest[:12]}"
    service.create_training_job(
        TrainingJobName=name,
        ResourceConfig={"InstanceType": "ml.g5.2xlarge"},
        AlgorithmSpecification={"TrainingImage": IMAGE},
        OutputDataConfig={"S3OutputPath": "s3://bucket/ft/results"},
        Tags=[
            {"Key": "identity", "Value": identity.tag},
            {"Key": "commit", "Value": "abc123"},
        ],
    )
    if trained:
        service.train(name)
    if status != "InProgress":
        service.move(name, status)
    return near_jobs(MemoryAws(SETTINGS, service), SETTINGS, JobIdentity(PARTS))


@pytest.mark.parametrize("status", ["InProgress", "Stopped", "Failed"])
def test_a_job_in_an_image_that_aws_has_patched_since(service, status):
    (said,) = near(service, status, {"image": "other"})
    assert "is this training but for its image" in said
    assert f"run it with sagemaker.image: {IMAGE}" in said


def test_a_job_of_another_commit(service):
    (said,) = near(service, "Stopped", {"code": "other", "lock": "other"})
    assert "but for its code and lock" in said
    assert "run it with commit abc123" in said


@pytest.mark.parametrize(
    ("status", "parts", "trained"),
    [
        ("Stopped", {}, True),  # the same training is gone on from
        ("Stopped", {"data": "other"}, True),  # another training
        ("Stopped", {"image": "other", "settings": "other"}, True),
        ("Completed", {"image": "other"}, True),  # nothing to go on from
        ("Failed", {"image": "other"}, False),  # without capacity: nothing was trained
    ],
)
def test_others_are_not_spoken_of(service, status, parts, trained):
    assert near(service, status, parts, trained) == []


def test_where_jobs_may_not_be_listed_nothing_is_said(service):
    service.always["list_training_jobs"] = client_error("AccessDeniedException")
    assert near(service, "Stopped", {"image": "other"}) == []
