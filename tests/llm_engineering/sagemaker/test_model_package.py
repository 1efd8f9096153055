"""SageMaker's Model Registry: a package for each job, once, and refusals before a job is paid for."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from botocore.exceptions import EndpointConnectionError
from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.sagemaker import ModelPackageSettings, SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.model.finetuning.record import AdapterFolder, JobRecord
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.model_package import (
    TAG,
    package_request,
    register_package,
    require_group,
)

PACKAGE = ModelPackageSettings(
    group="finetuned", image="763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:lmi"
)
SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="finetuning-jobs",
    region="us-east-1",
)
ARN = "arn:aws:sagemaker:us-east-1:123456789012:training-job/"
ADAPTER = AdapterFolder(Path("adapter"), "ab" * 32)


def record(name="job-1", uri="s3://finetuning-jobs/llm/results/job-1/output/model.tar.gz"):
    return JobRecord(
        name=name, arn=f"{ARN}{name}", console="", region="us-east-1", instance_type="", image="",
        spot=False, restarts=0, billable_seconds=1, training_seconds=1, cost_usd=None, packages={},
        python="", platform="", model_artifact=uri, serving="LMI: the adapter tiny, on owner/name",
    )  # fmt: skip


@pytest.fixture
def service():
    return MemoryService()


@pytest.fixture
def aws(service):
    return MemoryAws(SETTINGS, service)


def test_the_group_is_made_once(aws, service):
    require_group(aws, PACKAGE)
    require_group(aws, PACKAGE)
    assert service.calls["create_model_package_group"] == 1


def test_a_job_is_registered_once_and_another_apart(aws, service):
    first = register_package(aws, PACKAGE, record(), ADAPTER, "run-1")
    assert register_package(aws, PACKAGE, record(), ADAPTER, "run-2") == first
    assert service.calls["create_model_package"] == 1
    assert service.tags["job-1"][TAG] == first
    assert register_package(aws, PACKAGE, record("job-2"), ADAPTER, "run-3") != first


def test_a_launcher_that_died_before_it_noted_the_package_makes_no_second(aws, service):
    service.failures["add_tags"] = [EndpointConnectionError(endpoint_url="u")]
    with pytest.raises(
        AwsUnavailableError, match="nothing more is paid: the same command registers it"
    ):
        register_package(aws, PACKAGE, record(), ADAPTER, "run-1")
    register_package(aws, PACKAGE, record(), ADAPTER, "run-1")
    assert len(service.packages) == 1


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        ("DescribeModelPackageGroup", "describe_model_package_group"),
        ("CreateModelPackageGroup", "create_model_package_group"),
    ],
)
def test_what_is_not_permitted_is_said_before_a_job_is_paid_for(aws, service, operation, call):
    service.always[call] = client_error("AccessDeniedException")
    with pytest.raises(
        LaunchError,
        match=rf"model_package\.group: finetuned: allow sagemaker:{operation} .*nothing was submitted",
    ):
        require_group(aws, PACKAGE)


def test_a_package_that_is_refused_says_so(aws, service):
    service.always["create_model_package"] = client_error("ValidationException", "no such data")
    with pytest.raises(LaunchError, match=r"AWS refuses it \(ValidationException\).*no such data"):
        register_package(aws, PACKAGE, record(), ADAPTER, "run-1")


def test_the_api_takes_the_request():
    """By botocore's own model of it."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    api = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")
    shape = api.operation_model("CreateModelPackage").input_shape
    request = package_request(PACKAGE, record(), ADAPTER, "run-1")
    assert not ParamValidator().validate(request, shape).has_errors()
    assert len(request["ClientToken"]) <= 36


def test_the_simulated_service_takes_it_with_the_shipped_statements(sagemaker_service):
    aws = Aws(SETTINGS)
    with pytest.raises(LaunchError, match="allow sagemaker:DescribeModelPackageGroup"):
        require_group(aws, PACKAGE)
    sagemaker_service.use_shipped_policies(["MakeTheModelGroup", "RegisterModels"])
    require_group(aws, PACKAGE)
    key = "llm/results/job-1/output/model.tar.gz"
    request = package_request(PACKAGE, record(), ADAPTER, "run-1")
    client = aws.client("sagemaker")
    with pytest.raises(Exception, match="Could not find model data"):
        client.create_model_package(**request)
    sagemaker_service.client("s3").put_object(Bucket=sagemaker_service.bucket, Key=key, Body=b"x")
    made = client.create_model_package(**request)["ModelPackageArn"]
    assert client.create_model_package(**request)["ModelPackageArn"] == made
    found = sagemaker_service.client("sagemaker").describe_model_package(ModelPackageName=made)
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    assert found["CustomerMetadataProperties"]["adapter_digest"] == ADAPTER.digest
