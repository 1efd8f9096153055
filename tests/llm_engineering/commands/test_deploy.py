"""Tests of ``--deploy sagemaker`` and ``--undeploy``, under the shipped policies."""

from __future__ import annotations

import functools
import json
import socket
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.commands import deploy
from llm_engineering.configuration import to_yaml
from llm_engineering.errors import ConfigError, LaunchError, SecretError
from llm_engineering.sagemaker import follow

NAME = "finetuning-helper"
ENDPOINT = {
    "instance_type": "ml.g5.2xlarge",
    "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/djl-inference:lmi",
}
SECTION = {
    "instance_types": ["ml.g5.2xlarge"],
    "role": "arn:aws:iam::123456789012:role/SageMakerTraining",
    "bucket": "finetuning-jobs",
    "region": "us-east-1",
    "endpoint": ENDPOINT,
}


@pytest.fixture
def config_path(make_run: Any, make_config: Any, tmp_path: Path) -> Path:
    """The configuration of a finished run, with an endpoint."""
    make_run()
    path = tmp_path / "config.yaml"
    config = make_config({"sagemaker": SECTION, "registry.model": "helper"})
    path.write_text(to_yaml(config))
    return path


def test_a_dry_run_sends_nothing(
    config_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    price = ["sagemaker.endpoint.price_per_hour=1.5", "sagemaker.endpoint.instance_count=2"]

    deploy.deploy("one", config_path, price, dry_run=True)

    said = capsys.readouterr().out
    assert "# CreateModel" in said
    assert '"InstanceType": "ml.g5.2xlarge"' in said
    assert "adapters/helper/adapter_model.safetensors" in said
    assert "serving.properties" in said
    assert "LMI: the adapter helper, on s3://finetuning-jobs/" in said
    assert "costs 3.00 USD an hour until it is removed" in said
    assert f"--undeploy {NAME}" in said


def test_an_adapter_that_no_container_serves_is_refused(config_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "outputs/one/manifest.json"
    values = json.loads(path.read_text())
    values["config"]["lora"]["use_dora"] = True
    path.write_text(json.dumps(values))
    with pytest.raises(LaunchError, match=r"takes no DoRA adapter.*export.merged_16bit: true"):
        deploy.deploy("one", config_path, [], dry_run=True)


def test_a_secret_is_refused(config_path: Path) -> None:
    token = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1dE3f"
    with pytest.raises(SecretError, match=r"endpoint\.environment\.HF_TOKEN.*\n.*base_model"):
        deploy.deploy(
            "one", config_path, [f"sagemaker.endpoint.environment.HF_TOKEN={token}"], dry_run=True
        )


def test_without_an_endpoint_it_says_what_is_needed(config_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs instance_type and image"):
        deploy.deploy("one", config_path, ["sagemaker.endpoint=null"], dry_run=True)


@pytest.mark.slow
def test_under_the_shipped_policies_it_is_deployed_moved_and_removed(
    sagemaker_service: Any,
    config_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(follow, "Pace", functools.partial(follow.Pace, poll_s=0.05))
    role = [f"sagemaker.role={sagemaker_service.role_arn}"]
    with pytest.raises(LaunchError, match=r"allow sagemaker:DescribeEndpoint .DeployEndpoints in"):
        deploy.deploy("one", config_path, role)
    sagemaker_service.use_shipped_policies(["MakeEndpointParts", "DeployEndpoints"])
    capsys.readouterr()

    deploy.deploy("one", config_path, role)

    said = capsys.readouterr().out
    assert f"endpoint {NAME} serves" in said
    assert "USD an hour until it is removed" in said
    assert "unknown" not in said  # by the Price List
    keys = sagemaker_service.keys("llm-engineering-finetuning/")
    assert any(key.endswith("/adapters/helper/adapter_model.safetensors") for key in keys)
    base = [key for key in keys if "/models/" in key]
    assert any(key.endswith("model.safetensors") for key in base)
    properties = next(key for key in keys if key.endswith("serving.properties"))
    text = (
        sagemaker_service.client("s3")
        .get_object(Bucket=sagemaker_service.bucket, Key=properties)["Body"]
        .read()
        .decode()
    )
    place = base[0].rpartition("/")[0]
    assert f"option.model_id=s3://{sagemaker_service.bucket}/{place}/\n" in text

    deploy.deploy("one", config_path, [*role, "sagemaker.endpoint.instance_count=2"])
    client = sagemaker_service.client("sagemaker")
    now = client.describe_endpoint(EndpointName=NAME)
    (variant,) = client.describe_endpoint_config(EndpointConfigName=now["EndpointConfigName"])[
        "ProductionVariants"
    ]
    assert variant["InitialInstanceCount"] == 2
    with pytest.raises(
        LaunchError, match=r"allow sagemaker:CreateEndpointConfig .*serves what it did"
    ):
        deploy.deploy(
            "one", config_path, [*role, "sagemaker.endpoint.instance_type=ml.p4d.24xlarge"]
        )

    deploy.undeploy("", config_path, role)
    assert "nothing more is paid for it" in capsys.readouterr().out
    deploy.undeploy("", config_path, role)
    assert "nothing runs, and nothing is paid" in capsys.readouterr().out
