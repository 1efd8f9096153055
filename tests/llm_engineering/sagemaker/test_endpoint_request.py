"""The requests of an endpoint: names by what they hold, and the configuration's own settings."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.configuration.sagemaker import (
    EndpointSettings,
    SagemakerSettings,
    VpcSettings,
)
from llm_engineering.errors import ConfigError, LaunchError
from llm_engineering.sagemaker.endpoint_request import (
    build_deployment,
    endpoint_name,
    endpoint_settings,
)

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:lmi"
ENDPOINT = EndpointSettings(instance_type="ml.g5.2xlarge", image=IMAGE, instance_count=2)
SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="finetuning-jobs",
    endpoint=ENDPOINT,
    tags={"team": "search"},
    kms_key="alias/own",
    vpc=VpcSettings(subnets=["subnet-1"], security_groups=["sg-1"]),
)


def build(settings=SETTINGS, name="helper", digest="ab" * 32):
    return build_deployment(settings, name, digest, {"run": "one"})


def test_network_tags_and_files_are_the_configured_ones() -> None:
    made = build()
    assert made.model["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    (variant,) = made.config["ProductionVariants"]
    assert variant["InitialInstanceCount"] == 2
    assert variant["ModelName"] == made.model["ModelName"] == made.part
    assert {"Key": "team", "Value": "search"} in made.endpoint["Tags"]
    source = made.model["PrimaryContainer"]["ModelDataSource"]["S3DataSource"]
    assert source["S3Uri"].endswith("/endpoints/abababababab/")
    assert source["CompressionType"] == "None"


@pytest.mark.parametrize(
    ("instance_type", "expected"), [("ml.g5.2xlarge", False), ("ml.p3.2xlarge", True)]
)
def test_a_key_is_sent_for_a_volume_that_takes_one(instance_type, expected) -> None:
    endpoint = ENDPOINT.model_copy(update={"instance_type": instance_type})
    made = build(SETTINGS.model_copy(update={"endpoint": endpoint}))
    assert ("KmsKeyId" in made.config) is expected


def test_a_name_is_that_of_what_it_holds() -> None:
    other = ENDPOINT.model_copy(update={"instance_count": 3})
    assert build().part == build().part
    assert build(digest="cd" * 32).part != build().part
    assert build(SETTINGS.model_copy(update={"endpoint": other})).part != build().part


def test_every_name_is_one_that_the_api_takes() -> None:
    name = endpoint_name(SETTINGS, "SmolLM2-135M_Instruct.stdlib/qa" * 5)
    made = build(name=name)
    assert len(name) <= 50
    assert len(made.part) <= 63
    assert endpoint_name(SETTINGS, "a b") == "finetuning-a-b"


def test_what_the_api_would_refuse_is_named() -> None:
    bad = SETTINGS.model_copy(update={"tags": {"team": "x" * 300}})
    with pytest.raises(LaunchError, match=r"CreateModel: .*Tags\[2\].Value"):
        build(bad)


def test_without_the_section_it_says_what_is_needed() -> None:
    with pytest.raises(ConfigError, match="needs instance_type and image"):
        endpoint_settings(SETTINGS.model_copy(update={"endpoint": None}))
