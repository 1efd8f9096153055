"""What is uploaded is encrypted as configured, once, and under its digest."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.sagemaker import inputs
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.inputs import upload_base_model, upload_folder, upload_source
from llm_engineering.sagemaker.source_package import pack_source

ROOT = Path(__file__).resolve().parents[3]
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def target(sagemaker_service):
    def make(**changes):
        settings = SagemakerSettings.model_validate(
            {
                "instance_types": ["ml.g5.2xlarge"],
                "role": sagemaker_service.role_arn,
                "bucket": sagemaker_service.bucket,
                "region": "us-east-1",
                **changes,
            }
        )
        return Aws(settings).client("s3"), settings

    return make


@pytest.fixture
def staged(tmp_path):
    folder = tmp_path / "staged"
    folder.mkdir()
    (folder / "requirements.txt").write_text("a==1\n")
    return folder


@pytest.mark.parametrize(("key", "expected"), [(KEY, ("aws:kms", KEY)), (None, (None, None))])
def test_uploads_are_encrypted_by_the_configured_key(
    target, staged, sagemaker_service, key, expected
):
    s3, settings = target(kms_key=key)
    uri = upload_folder(s3, staged, settings, "jobs/one")
    assert uri == "s3://finetuning-jobs/llm-engineering-finetuning/jobs/one/"
    head = sagemaker_service.client("s3").head_object(
        Bucket=sagemaker_service.bucket,
        Key="llm-engineering-finetuning/jobs/one/requirements.txt",
    )
    encryption = head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")
    assert encryption == expected or (key is None and encryption[1] is None)


def test_source_is_sent_once_as_two_objects(target, staged, tmp_path, sagemaker_service):
    s3, settings = target()
    packed = pack_source(staged, tmp_path / "packed")
    uri = upload_source(s3, packed, "a-digest", settings)
    keys = ["llm-engineering-finetuning/code/a-digest/" + n for n in ("source.tar.gz", "start.py")]
    assert sagemaker_service.keys() == keys
    assert uri == "s3://finetuning-jobs/llm-engineering-finetuning/code/a-digest/"
    sagemaker_service.set_faults(denied=["s3:PutObject"])
    assert upload_source(s3, packed, "a-digest", settings) == uri


def test_source_that_is_old_is_sent_again_before_the_lifecycle_rule_removes_it(
    target, staged, tmp_path, sagemaker_service, monkeypatch
):
    s3, settings = target()
    packed = pack_source(staged, tmp_path / "packed")
    upload_source(s3, packed, "a-digest", settings)
    monkeypatch.setattr(inputs, "SOURCE_KEPT", timedelta(seconds=-1))
    sagemaker_service.set_faults(denied=["s3:PutObject"])
    with pytest.raises(Exception, match="AccessDenied"):
        upload_source(s3, packed, "a-digest", settings)
    # A job may wait and train for 28 days each, and reads its source at every start.
    rules = json.loads((ROOT / "docs" / "sagemaker" / "lifecycle.json").read_text())["Rules"]
    (days,) = [rule["Expiration"]["Days"] for rule in rules if rule["ID"] == "source"]
    monkeypatch.undo()
    assert days - inputs.SOURCE_KEPT.days >= 2 * 28


def test_a_base_model_of_s3_is_not_uploaded(target, sagemaker_service):
    s3, settings = target(base_model="s3://models/llama-8b")
    config = recipe = None  # neither is looked at
    assert upload_base_model(s3, config, recipe, settings) == "s3://models/llama-8b/"
    assert sagemaker_service.keys() == []


def test_weights_that_are_there_already_are_not_sent_again(
    target, make_config, tiny_model, sagemaker_service
):
    s3, settings = target()
    config, recipe = make_config(), SimpleNamespace(digest="d")
    uri = upload_base_model(s3, config, recipe, settings)
    weights = "llm-engineering-finetuning/models/d/model.safetensors"
    assert weights in sagemaker_service.keys()
    sagemaker_service.set_faults(denied=["s3:PutObject"])
    assert upload_base_model(s3, config, recipe, settings) == uri
    sagemaker_service.set_faults()
    sagemaker_service.client("s3").put_object(
        Bucket=sagemaker_service.bucket, Key=weights, Body=b"cut short"
    )
    upload_base_model(s3, config, recipe, settings)
    head = sagemaker_service.client("s3").head_object(Bucket=sagemaker_service.bucket, Key=weights)
    assert head["ContentLength"] == (tiny_model / "model.safetensors").stat().st_size
