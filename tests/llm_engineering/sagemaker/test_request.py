"""The request as AWS gets it: names, and every setting in its place."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("sagemaker.train", reason="the sagemaker group is not installed")

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.request import JobInputs, build_request, image_uri, job_name

DIGEST = "0123456789abcdef" * 4
# CreateTrainingJob reference: TrainingJobName
NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


@pytest.mark.parametrize(
    ("model", "data", "attempt", "expected"),
    [
        ("SmolLM2-135M", "train", 1, "SmolLM2-135M-train-0123456789ab"),
        ("SmolLM2-135M", "train", 3, "SmolLM2-135M-train-0123456789ab-3"),
        ("my_model.v1", "Q & A", 1, "my-model-v1-Q-A-0123456789ab"),
        ("named", "", 1, "named-0123456789ab"),
        ("m" * 80, "d", 12, "m" * 47 + "-0123456789ab-12"),
    ],
)
def test_job_names(model, data, attempt, expected):
    name = job_name(model, data, DIGEST, attempt)
    assert name == expected
    assert NAME.fullmatch(name)
    assert len(name) <= 63


@pytest.fixture
def request_of(tmp_path, sagemaker_service):
    def make(**changes):
        settings = SagemakerSettings.model_validate(
            {
                "instance_types": ["ml.g5.2xlarge"],
                "role": sagemaker_service.role_arn,
                "bucket": "some-bucket",
                "prefix": "here/below",
                "region": "us-east-1",
                **changes,
            }
        )
        (tmp_path / "requirements.txt").write_text("")
        return build_request(
            settings,
            Aws(settings).session,
            "us-east-1",
            name="a-job",
            instance_type="ml.g5.2xlarge",
            inputs=JobInputs("s3://b/config/", "s3://b/data/", None, tmp_path),
            tags={"run": "r"},
            checkpoints="shared",
            upload=False,
        )

    return make


def test_a_plain_request(request_of):
    request = request_of()
    assert request["TrainingJobName"] == "a-job"
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.g5.2xlarge",
        "InstanceCount": 1,
        "VolumeSizeInGB": 100,
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 86_400}
    assert request["CheckpointConfig"] == {
        "S3Uri": "s3://some-bucket/here/below/checkpoints/shared",
        "LocalPath": "/opt/ml/checkpoints",
    }
    assert request["OutputDataConfig"]["S3OutputPath"] == "s3://some-bucket/here/below/results"
    assert request["Tags"] == [{"Key": "run", "Value": "r"}]
    assert request["EnableManagedSpotTraining"] is False
    assert "HyperParameters" not in request
    assert "VpcConfig" not in request
    assert {c["ChannelName"] for c in request["InputDataConfig"]} == {
        "config",
        "dataset",
        "code",
        "sm_drivers",
    }


def test_spot_warm_pool_network_and_key(request_of):
    spot = request_of(spot={"enabled": True, "max_wait_seconds": 90_000})
    assert spot["EnableManagedSpotTraining"] is True
    assert spot["StoppingCondition"]["MaxWaitTimeInSeconds"] == 90_000
    warm = request_of(
        warm_pool_seconds=600,
        volume_gb=50,
        kms_key="a-key",
        vpc={"subnets": ["subnet-1"], "security_groups": ["sg-1"]},
        tags={"team": "ml"},
    )
    assert warm["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert warm["ResourceConfig"]["VolumeSizeInGB"] == 50
    assert warm["ResourceConfig"]["VolumeKmsKeyId"] == "a-key"
    assert warm["OutputDataConfig"]["KmsKeyId"] == "a-key"
    assert warm["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert {"Key": "team", "Value": "ml"} in warm["Tags"]


def test_the_image_is_pinned_and_can_be_named(request_of):
    image = request_of()["AlgorithmSpecification"]["TrainingImage"]
    assert image.endswith(".amazonaws.com/pytorch-training:2.9.0-gpu-py312")
    named = request_of(image="my/image:1")["AlgorithmSpecification"]["TrainingImage"]
    assert named == "my/image:1"


def test_the_pinned_image_is_the_regions_own():
    settings = SagemakerSettings(
        instance_types=["ml.g5.2xlarge"], role="arn:aws:iam::123456789012:role/x", bucket="bucket"
    )
    assert ".dkr.ecr.eu-west-1." in image_uri(settings, "eu-west-1")
