"""Which image a job runs in, by the digest that its tag stands for."""

from __future__ import annotations

import hashlib

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError, SetupError
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.image import (
    PYTORCH_IMAGE,
    TrainingImage,
    _sdk_table,
    image_uri,
    pin_image,
)

REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/training"
DIGEST = "sha256:" + hashlib.sha256(b"training:1").hexdigest()


def settings(**changes):
    return SagemakerSettings.model_validate(
        {
            "instance_types": ["ml.g5.2xlarge"],
            "role": "arn:aws:iam::123456789012:role/FinetuningJobs",
            "bucket": "finetuning-jobs",
            "region": "us-east-1",
            "image": f"{REPOSITORY}:1",
            **changes,
        }
    )


def test_the_pinned_image_is_in_every_region_what_the_sdk_says():
    image_uris = pytest.importorskip("sagemaker.core.image_uris", reason="no SDK here")
    table = _sdk_table()["training"]["versions"][PYTORCH_IMAGE]["registries"]
    assert len(table) > 40
    for region in table:
        theirs = image_uris.retrieve(
            "pytorch", region=region, version=PYTORCH_IMAGE, py_version="py312",
            instance_type="ml.g5.2xlarge", image_scope="training",
        )  # fmt: skip
        assert image_uri(settings(image=None), region) == theirs


def test_a_region_without_it_is_refused():
    pytest.importorskip("sagemaker.core", reason="no SDK here")
    with pytest.raises(LaunchError, match=r"sagemaker\.image: AWS has no PyTorch .* in xx-no-1"):
        image_uri(settings(image=None), "xx-no-1")


def test_without_the_sdks_table_an_image_must_be_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"name one, or run `make setup-launcher`"):
        image_uri(settings(image=None), "us-east-1")
    assert image_uri(settings(), "us-east-1") == f"{REPOSITORY}:1"


def test_a_python_that_no_pinned_image_has_is_refused():
    with pytest.raises(ValueError, match=r"image_python: the pinned image has Python 3\.12"):
        settings(image=None, image_python="3.11")
    settings(image_python="3.11")  # of an image of one's own


@pytest.fixture
def pin(sagemaker_service):
    def look(**changes):
        chosen = settings(**changes)
        return pin_image(Aws(chosen), chosen)

    return look


def test_a_tag_is_sent_as_the_digest_that_it_stands_for(pin, sagemaker_service):
    image = pin()
    assert image == TrainingImage(f"{REPOSITORY}@{DIGEST}", tag=f"{REPOSITORY}:1")
    assert image.identity == DIGEST
    sagemaker_service.set_faults(moved_tags={"training:1": "patched"})
    assert pin().identity == "sha256:" + hashlib.sha256(b"patched").hexdigest() != DIGEST


def test_a_digest_is_asked_of_nobody(pin, sagemaker_service):
    sagemaker_service.set_faults(denied=["ecr:BatchGetImage"])
    assert pin(image=f"{REPOSITORY}@{DIGEST}") == TrainingImage(f"{REPOSITORY}@{DIGEST}")


def test_not_permitted_to_look_goes_on_with_the_tag_and_says_so(pin, sagemaker_service):
    sagemaker_service.set_faults(denied=["ecr:BatchGetImage"])
    image = pin()
    assert (image.uri, image.identity) == (f"{REPOSITORY}:1", f"{REPOSITORY}:1")
    assert "not permitted (ecr:BatchGetImage); going on with its tag" in image.warning


def test_where_ecr_cannot_be_asked_now_nothing_is_guessed(pin, sagemaker_service):
    sagemaker_service.set_faults(expired_until=4e9)
    with pytest.raises(AwsUnavailableError, match=r"the digest of .* nothing was submitted"):
        pin()


def test_a_tag_that_is_not_there_is_refused(pin):
    with pytest.raises(LaunchError, match="the repository training has no tag not-there"):
        pin(image=f"{REPOSITORY}:not-there")


def test_an_image_of_another_region_is_refused(pin):
    with pytest.raises(LaunchError, match="is in eu-west-1, the job would run in us-east-1"):
        pin(image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/training:1")


def test_an_image_that_is_not_in_ecr_is_told(pin):
    image = pin(image="docker.example.com/training:1")
    assert image.identity == "docker.example.com/training:1"
    assert "is not in ECR; its digest is not known" in image.warning
