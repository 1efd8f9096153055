"""The request as AWS gets it: names, every setting in its place, and what the API's model forbids."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.model.finetuning.progress import ProgressDisplay
from llm_engineering.sagemaker.image import TrainingImage
from llm_engineering.sagemaker.request import (
    METRICS,
    JobInputs,
    build_request,
    job_name,
    validate_request,
)

DIGEST = "0123456789abcdef" * 4
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/training@sha256:" + "a" * 64
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
LOCAL_STORE, EBS = "ml.g5.2xlarge", "ml.p3.2xlarge"
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


def request_of(*types, base_model=None, **changes):
    settings = SagemakerSettings.model_validate(
        {
            "instance_types": list(types) or [LOCAL_STORE],
            "role": "arn:aws:iam::123456789012:role/FinetuningJobs",
            "bucket": "some-bucket",
            "prefix": "here/below/",
            "image": IMAGE,
            **changes,
        }
    )
    return build_request(
        settings,
        name="a-job",
        instance_types=settings.instance_types,
        image=TrainingImage(IMAGE),
        inputs=JobInputs("s3://b/config/", "s3://b/data/", base_model, "s3://b/code/"),
        tags={"run": "r"},
        checkpoints="shared",
    )


def test_a_plain_request():
    assert request_of() == {
        "TrainingJobName": "a-job",
        "RoleArn": "arn:aws:iam::123456789012:role/FinetuningJobs",
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/start.py"],
            "MetricDefinitions": [{"Name": k, "Regex": v} for k, v in METRICS.items()],
        },
        "InputDataConfig": [
            channel("config", "s3://b/config/"),
            channel("dataset", "s3://b/data/"),
            channel("code", "s3://b/code/"),
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://some-bucket/here/below/results"},
        "CheckpointConfig": {
            "S3Uri": "s3://some-bucket/here/below/checkpoints/shared",
            "LocalPath": "/opt/ml/checkpoints",
        },
        "ResourceConfig": {
            "InstanceType": LOCAL_STORE,
            "InstanceCount": 1,
            "VolumeSizeInGB": 30,
        },
        "StoppingCondition": {
            "MaxRuntimeInSeconds": 86_400,
            "MaxPendingTimeInSeconds": 7_200,
        },
        "EnableManagedSpotTraining": False,
        "Environment": {"HF_HOME": "/opt/ml/huggingface"},
        "Tags": [{"Key": "run", "Value": "r"}],
        "RetryStrategy": {"MaximumRetryAttempts": 2},
    }


def test_a_managed_mlflow_server_is_told_by_what_its_client_reads():
    """Which the plugin in the lock turns into a store of that server."""
    arn = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/team"
    environment = request_of(mlflow=arn, environment={"MLFLOW_EXPERIMENT_NAME": "mine"})[
        "Environment"
    ]
    assert environment["MLFLOW_TRACKING_URI"] == arn
    assert environment["MLFLOW_EXPERIMENT_NAME"] == "mine", "the user's own has the last word"
    assert environment["MLFLOW_TAGS"] == '{"job": "a-job"}'
    assert "MLFLOW_TRACKING_URI" not in request_of()["Environment"]


def channel(name, uri, mode="File"):
    source = {
        "S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated",
    }  # fmt: skip
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": mode}


def test_a_key_encrypts_results_always_and_a_volume_where_aws_allows_it():
    local = request_of(LOCAL_STORE, kms_key=KEY)
    assert local["OutputDataConfig"]["KmsKeyId"] == KEY
    assert "VolumeKmsKeyId" not in local["ResourceConfig"]
    ebs = request_of(EBS, kms_key=KEY)
    assert ebs["OutputDataConfig"]["KmsKeyId"] == KEY
    assert ebs["ResourceConfig"]["VolumeKmsKeyId"] == KEY
    assert ebs["ResourceConfig"]["VolumeSizeInGB"] == 100
    mixed = request_of(EBS, LOCAL_STORE, kms_key=KEY)
    assert "VolumeKmsKeyId" not in mixed["ResourceConfig"]
    assert mixed["ResourceConfig"]["VolumeSizeInGB"] == 100  # the first has nothing else


def test_on_demand_the_service_chooses_among_several_types():
    resources = request_of(LOCAL_STORE, "ml.g6.2xlarge", instance_count=2)["ResourceConfig"]
    assert resources == {
        "InstancePreferences": [{"InstanceType": LOCAL_STORE}, {"InstanceType": "ml.g6.2xlarge"}],
        "InstanceCount": 2,
        "VolumeSizeInGB": 30,
    }


def test_spot_waits_by_its_own_limit():
    spot = request_of(spot={"enabled": True, "max_wait_seconds": 90_000})
    assert spot["EnableManagedSpotTraining"] is True
    assert spot["StoppingCondition"] == {
        "MaxRuntimeInSeconds": 86_400,
        "MaxWaitTimeInSeconds": 90_000,
    }


def test_network_warm_pool_and_tags():
    request = request_of(
        warm_pool_seconds=600,
        volume_gb=50,
        internal_retries=0,
        vpc={"subnets": ["subnet-1"], "security_groups": ["sg-1"]},
        encrypt_between_instances=True,
        network_isolation=True,
        packages={"wheelhouse": "s3://some-bucket/wheels"},
        tags={"team": "ml"},
    )
    assert request["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert request["ResourceConfig"]["VolumeSizeInGB"] == 50
    assert request["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert request["EnableInterContainerTrafficEncryption"] is True
    assert request["EnableNetworkIsolation"] is True
    assert {"Key": "team", "Value": "ml"} in request["Tags"]
    assert request["InputDataConfig"][-1] == channel("wheelhouse", "s3://some-bucket/wheels/")
    assert "RetryStrategy" not in request


def test_a_base_model_of_s3_is_copied_or_streamed():
    whole = request_of(base_model="s3://m/llama/")
    assert whole["InputDataConfig"][-1] == channel("base_model", "s3://m/llama/")
    streamed = request_of(base_model="s3://m/llama/", base_model_mode="FastFile")
    modes = {each["ChannelName"]: each["InputMode"] for each in streamed["InputDataConfig"]}
    assert modes == {"config": "File", "dataset": "File", "code": "File", "base_model": "FastFile"}


def test_the_job_learns_of_codeartifact_and_the_configured_environment_has_the_last_word():
    arn = "arn:aws:codeartifact:us-east-1:123456789012:repository/domain/repo"
    request = request_of(
        packages={"codeartifact": arn}, environment={"HF_HOME": "/tmp/hub", "MODE": "quick"}
    )
    assert request["Environment"] == {
        "HF_HOME": "/tmp/hub", "MODE": "quick", "CA_REPOSITORY_ARN": arn,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tags": {"k" * 129: "v"}}, r"Tags\[0\]\.Key: .* is not within 1 and 128"),
        ({"tags": {"team": "v{}"}}, r"Tags\[1\]\.Value: 'v\{\}' does not match"),
        ({"tags": {f"k{n}": "" for n in range(50)}}, r"Tags: .* is not within 0 and 50"),
        ({"environment": {f"K{n}": "" for n in range(100)}}, r"Environment: .* 0 and 100"),
        ({"environment": {"a-b": "x"}}, r"Environment \(key\): 'a-b' does not match"),
        (
            {"vpc": {"subnets": ["a_b"], "security_groups": ["sg-1"]}},
            r"VpcConfig\.Subnets\[0\]: 'a_b' does not match",
        ),
    ],
)
def test_what_the_apis_model_forbids_is_refused_here(changes, message):
    with pytest.raises(LaunchError, match=message):
        request_of(**changes)


def test_unknown_members_types_and_choices_are_refused():
    request = request_of()
    with pytest.raises(LaunchError, match='Unknown parameter in input: "Nonsense"'):
        validate_request(request | {"Nonsense": 1})
    with pytest.raises(LaunchError, match=r"RoleArn.*valid types: <class 'str'>"):
        validate_request(request | {"RoleArn": 1})
    wrong = {"InstanceType": "ml.none.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    with pytest.raises(LaunchError, match=r"ResourceConfig\.InstanceType: 'ml\.none\.xlarge'"):
        validate_request(request | {"ResourceConfig": wrong})


def test_nothing_of_the_sdk_is_needed(monkeypatch):
    for name in [each for each in sys.modules if each.partition(".")[0] == "sagemaker"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sagemaker", None)
    assert request_of()["TrainingJobName"] == "a-job"


def test_the_metrics_find_the_figures_in_the_line_that_a_training_logs(caplog):
    display = ProgressDisplay()
    display.start(40)
    record = SimpleNamespace(
        steps=40,
        points=[SimpleNamespace(loss=3.2564, tokens_per_second=1234.5)],
        held_out=[SimpleNamespace(step=0, metrics=SimpleNamespace(loss=4.1142))],
        validation=[],
    )
    with caplog.at_level("INFO"):
        display.show(record)
    (line,) = [each.getMessage() for each in caplog.records]
    found = {name: re.search(regex, line)[1] for name, regex in METRICS.items()}
    assert found == {"train:loss": "3.256", "held_out:loss": "4.114"}
