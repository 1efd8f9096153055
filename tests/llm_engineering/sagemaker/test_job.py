"""The job's own parts that need no container; the whole job runs in test_launch.py."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import LaunchError, LoraError
from llm_engineering.model.chat_template import read_chat_template
from llm_engineering.sagemaker import job as jobs
from llm_engineering.sagemaker.inputs import write_config_channel
from llm_engineering.sagemaker.job import (
    CONFIG,
    JobFolders,
    JobOrder,
    leave_unproven,
    read_config,
    read_secrets,
    require_same_weights,
    secret_value,
    split_secret,
    write_failure,
)
from llm_engineering.sagemaker.serving_layout import ServedFrom

pytestmark = pytest.mark.slow

ORDER = JobOrder(
    run="r",
    region="us-east-1",
    secrets={},
    has_base_model=False,
    served=ServedFrom(name="tiny", base="owner/name"),
)


def test_the_failure_file_has_the_users_message_first(tmp_path):
    path = tmp_path / "output" / "failure"
    try:
        raise LoraError("lora.target_modules: query matches nothing")
    except LoraError as error:
        write_failure(path, error)
    text = path.read_text()
    assert text.startswith("lora.target_modules: query matches nothing\n\nTraceback")
    assert "test_job.py" in text


def test_an_unforeseen_error_has_its_kind_first_and_fits(tmp_path):
    try:
        raise ValueError("x" * 5000)
    except ValueError as error:
        write_failure(tmp_path / "failure", error)
    text = (tmp_path / "failure").read_text()
    assert text.startswith("ValueError: xxx")
    assert len(text) == 1024


def test_an_unproven_run_goes_where_the_service_keeps_it(tmp_path, caplog):
    """A failed job's model folder is not kept, its checkpoints are."""
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "job").mkdir(parents=True)
    leave_unproven(tmp_path / "finetuning", "r", checkpoints)  # the save failed before
    assert [path.name for path in checkpoints.iterdir()] == ["job"]
    kept = tmp_path / "finetuning" / "r-unproven" / "adapter"
    kept.mkdir(parents=True)
    (kept / "adapter_model.safetensors").touch()
    leave_unproven(tmp_path / "finetuning", "r", checkpoints)
    assert (checkpoints / "r-unproven" / "adapter" / "adapter_model.safetensors").is_file()
    assert "the adapter is in the job's checkpoints in S3, in r-unproven/" in caplog.text


def test_a_completed_job_leaves_its_checkpoints_to_the_service(make_config, tmp_path, monkeypatch):
    """What is deleted there is deleted in S3 too, while the model is not uploaded yet."""
    folders = JobFolders(tmp_path)
    write_config_channel(make_config(), ORDER, folders.channel(CONFIG))
    (tmp_path / "finetuning" / "r" / "adapter").mkdir(parents=True)

    def train_completely(*given, work, name, **settings):
        (work / name / "checkpoints" / "checkpoint-2").mkdir(parents=True)
        return SimpleNamespace(
            lora=ORDER, record=ORDER, evaluation=ORDER,
            saved=SimpleNamespace(folder=tmp_path / "finetuning" / "r"),
        )  # fmt: skip

    monkeypatch.setattr("llm_engineering.training.complete.train_completely", train_completely)
    monkeypatch.setattr(PreparedDataset, "read", lambda folder: None)
    monkeypatch.setattr(jobs, "read_placement", lambda folders: None)
    jobs.run(folders, threading.Event())
    assert (folders.model / "inventory.json").is_file()
    assert (folders.checkpoints / "job" / "checkpoints" / "checkpoint-2").is_dir()


def test_the_jobs_configuration_is_the_users_without_the_launchers_part(make_config, tmp_path):
    config = make_config(
        {
            "sagemaker": {
                "instance_types": ["ml.g5.2xlarge"],
                "role": "arn:aws:iam::123456789012:role/x",
                "bucket": "bucket",
            }
        }
    )
    channel = write_config_channel(config, ORDER, tmp_path / "channel")
    assert read_config(channel) == config.model_copy(update={"sagemaker": None})
    assert "arn:aws" not in (channel / "config.yaml").read_text()


def test_a_chat_template_of_the_users_travels_beside_it(make_config, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0]['content'] }}")
    config = make_config({"model.chat_template": str(own)})
    channel = write_config_channel(config, ORDER, tmp_path / "channel")
    own.unlink()  # the job's host has never seen it
    template = read_chat_template(read_config(channel).model.chat_template)
    assert template == "{{ messages[0]['content'] }}"


def test_a_secret_that_cannot_be_read_is_named_without_its_value(monkeypatch):
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    order = ORDER.model_copy(update={"secrets": {"HF_TOKEN": "prod/hub"}})
    with pytest.raises(LaunchError, match=r"HF_TOKEN: the job cannot read the secret prod/hub"):
        read_secrets(order)


def test_the_adapter_to_start_from_travels(make_config, tmp_path):
    start = tmp_path / "adapter"
    start.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"):
        (start / name).write_text(name)
    config = make_config({"train.start_from": str(start)})
    channel = write_config_channel(config, ORDER, tmp_path / "channel")
    there = read_config(channel).train.start_from
    assert there == str(channel / "start")
    assert sorted(path.name for path in (channel / "start").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hub-AbCdEf"


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("prod/hub", ("prod/hub", None)),
        ("prod/hub:HF_TOKEN", ("prod/hub", "HF_TOKEN")),
        (ARN, (ARN, None)),
        (f"{ARN}:HF_TOKEN", (ARN, "HF_TOKEN")),
    ],
)
def test_a_secret_is_named_with_or_without_a_key(named, expected):
    assert split_secret(named) == expected


def test_a_key_of_a_json_secret_and_a_plain_one():
    text = '{"HF_TOKEN": "hf_abc", "port": 1}'
    assert secret_value(text, "hub", "HF_TOKEN", "HF_TOKEN") == "hf_abc"
    assert secret_value(text, "hub", "port", "PORT") == "1"
    assert secret_value("hf_abc", "hub", None, "HF_TOKEN") == "hf_abc"
    assert secret_value("[1]", "hub", None, "HF_TOKEN") == "[1]"


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('{"A": "hf_abc"}', None, "the secret hub has the keys A; name one .* for example hub:A"),
        ('{"A": "hf_abc"}', "B", "the secret hub has the keys A; name one"),
        ("hf_abc", "B", "the secret hub is plain text and has no key 'B'"),
    ],
)
def test_json_is_never_a_token_by_mistake(text, key, message):
    with pytest.raises(LaunchError, match=message) as error:
        secret_value(text, "hub", key, "HF_TOKEN")
    assert "hf_abc" not in str(error.value)


def test_other_weights_than_the_launcher_saw_are_refused_before_training():
    order = ORDER.model_copy(update={"weights": {"a.safetensors": "1", "b.safetensors": "2"}})
    require_same_weights(order, {"a.safetensors": "1", "b.safetensors": "2"})
    for found in ({"a.safetensors": "1", "b.safetensors": "3"}, {"a.safetensors": "1"}):
        with pytest.raises(
            LaunchError, match=r"model\.id: b\.safetensors of the base model are not"
        ):
            require_same_weights(order, found)
    with pytest.raises(LaunchError, match=r"c\.safetensors"):
        require_same_weights(order, {**order.weights, "c.safetensors": "3"})
    require_same_weights(ORDER, {"a.safetensors": "1"})  # of a launcher that did not say
