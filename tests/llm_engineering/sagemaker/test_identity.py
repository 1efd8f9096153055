"""What makes a job another one, and what does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.sagemaker.identity import JobIdentity, configuration_digest, job_identity

PARTS = {"code": "c", "image": "an/image@sha256:1", "lock": "torch==2.9.0"}
INPUTS = {"data": "d", "model": "m", "start": ""}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    return folder


def make_config(model, **sections) -> FinetuningConfig:
    values = {
        "model": {"id": str(model)},
        "data": {"sources": [{"source": "a/train.jsonl"}], "held_out": {"fraction": 0.1}},
    }
    for section, settings in sections.items():
        values[section] = {**values.get(section, {}), **settings}
    return FinetuningConfig.model_validate(values)


def identity(config, recipe, data="d" * 64, **parts) -> JobIdentity:
    dataset = SimpleNamespace(summary=SimpleNamespace(digest=data))
    return job_identity(config, recipe, dataset, **{**PARTS, **parts})


@pytest.mark.parametrize(
    "sections",
    [
        {"run": {"name": "mine", "output_dir": "elsewhere"}},
        {"train": {"log_every": 7, "checkpoint_every": 3, "keep_checkpoints": 5}},
        {"data": {"sources": [{"source": "b/other.jsonl"}]}},
        {"export": {"hub_repo": "owner/name"}},
        {"registry": {"model": "other"}},
    ],
)
def test_where_it_runs_and_how_it_is_called_teach_nothing(model, recipe, sections):
    assert identity(make_config(model, **sections), recipe) == identity(make_config(model), recipe)


def test_a_local_models_folder_is_not_the_model(model, recipe, tmp_path):
    other = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"id": "/elsewhere"})}
    )
    assert identity(make_config(model), other) == identity(make_config(model), recipe)


def changed_weights(recipe):
    return recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"weight_digests": {"m": "0" * 64}})}
    )


@pytest.mark.parametrize(
    ("part", "sections"),
    [
        ("settings", {"train": {"learning_rate": 3e-5}}),
        ("settings", {"train": {"max_steps": 30}}),
        ("settings", {"run": {"seed": 5}}),
        ("settings", {"evaluate": {"samples": 7}}),
        ("settings", {"export": {"merged_16bit": True}}),
    ],
)
def test_what_teaches_or_must_be_brought_back_makes_another(model, recipe, part, sections):
    now, then = (
        identity(make_config(model, **sections), recipe),
        identity(make_config(model), recipe),
    )
    assert now.digest != then.digest
    assert now.differences(then.tag) == [part]
    assert not now.is_of(f"finetuning-sft-{then.digest[:12]}-3")
    assert then.is_of(f"finetuning-sft-{then.digest[:12]}-3")


@pytest.mark.parametrize("part", ["code", "image", "lock"])
def test_code_image_and_lock_make_another(model, recipe, part):
    now, then = (
        identity(make_config(model), recipe),
        identity(make_config(model), recipe, **{part: "x"}),
    )
    assert now.differences(then.tag) == [part]


def test_data_and_weights_make_another(model, recipe):
    config = make_config(model)
    then = identity(config, recipe)
    assert identity(config, recipe, data="e" * 64).differences(then.tag) == ["data"]
    assert identity(config, changed_weights(recipe)).differences(then.tag) == ["model"]
    rank = recipe.model_copy(update={"scaling": 1.0})
    assert identity(config, rank).differences(then.tag) == ["adapter"]


def test_the_launchers_own_packages_are_not_in_the_code(monkeypatch):
    """`2.13.0+cpu` on one host and `2.13.0` on another train the same job."""
    from llm_engineering.lineage import fingerprints

    monkeypatch.setattr(fingerprints, "versions", lambda: {"torch": "2.13.0+cpu"})
    code, source = fingerprints._code(), fingerprints.source_digest()
    monkeypatch.setattr(fingerprints, "versions", lambda: {"torch": "2.13.0"})
    assert fingerprints._code() != code, "the cache of local steps does mind"
    assert fingerprints.source_digest() == source


def test_a_tag_is_one_that_aws_takes(model, recipe):
    tag = identity(make_config(model), recipe).tag
    assert len(tag) <= 256
    assert set(tag) <= set("abcdefghijklmnopqrstuvwxyz0123456789: ")


def shown(config, **changes):
    return configuration_digest(config, **{**INPUTS, **PARTS, **changes})


def test_a_configuration_is_known_without_names_and_folders(model, tmp_path):
    then = shown(make_config(model))
    assert shown(make_config(tmp_path / "elsewhere", run={"name": "mine"})) == then
    assert shown(make_config(model, data={"sources": [{"source": "b/x.jsonl"}]})) == then
    for changes in ({"data": "e"}, {"model": "n"}, {"start": "s"}, {"image": "i"}, {"lock": "l"}):
        assert shown(make_config(model), **changes) != then
    assert shown(make_config(model, train={"learning_rate": 3e-5})) != then
    assert shown(make_config(model, lora={"r": 4})) != then
    assert shown(make_config(model, data={"on_leaks": "drop"})) != then
