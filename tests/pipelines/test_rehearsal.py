"""How a run goes from step to step, here and on separate hosts; nothing is computed."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from separate_hosts import ROOT, rehearsal
from separate_hosts.fixtures import separate_hosts
from zenml.client import Client

from llm_engineering.commands import finetune, pull
from llm_engineering.configuration import to_yaml
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import DataError
from llm_engineering.registry.versions import all_versions, artifact

FILES = {
    *("adapter", "merged", "metrics.json", "manifest.json", "answers.json"),
    *("promotion.json", "report.html"),
}
VERSION = {
    *("dataset", "adapter", "training_record", "trained_model", "evaluation"),
    *("adapter_bundle", "merged_model", "metrics", "manifest", "report", "promotion"),
}


@pytest.fixture
def config(tmp_path) -> FinetuningConfig:
    model = f"model-{uuid4().hex[:8]}"
    return FinetuningConfig.model_validate(
        {
            "run": {"output_dir": str(tmp_path / "outputs"), "name": f"{model}-run"},
            "model": {"id": "acme/tiny"},
            "data": {"sources": [{"source": "acme/rows"}], "held_out": {"fraction": 0.1}},
            "export": {"merged_16bit": True},
            "registry": {"model": model},
            "zenml": {"retries": {"max_retries": 1}},
        }
    )


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The commands, whose checks of this host are not what is rehearsed."""
    from zenml.utils import source_utils

    source_utils.set_custom_source_root(str(ROOT))
    monkeypatch.setattr(finetune, "_check_host", lambda *_, **__: None)
    monkeypatch.setattr(finetune, "_check_inputs", lambda *_, **__: None)

    def run(config, *pulled):
        path = tmp_path / "config.yaml"
        path.write_text(to_yaml(config))
        if pulled:
            pull.run(*pulled, path, [])
        else:
            finetune.run(path, [])
        return capsys.readouterr().out

    return run


def artifacts(version) -> set[str]:
    return {name for name in VERSION if version.get_artifact(name) is not None}


def test_here(config, command, tmp_path, monkeypatch):
    import pipelines.finetuning  # noqa: F401

    rehearsal.install(monkeypatch.setattr)
    said = command(config)

    name, outputs = config.run.name, tmp_path / "outputs"
    assert "held-out loss  3.000 -> 2.000" in said
    assert "production     promoted: rehearsed" in said
    (version,) = all_versions(config.registry.model)
    assert (version.name, version.stage) == (name, "production")
    assert artifacts(version) == VERSION
    run = Client().get_pipeline_run(name)
    assert "<svg" in run.steps["train"].outputs["loss_curve"][0].load()
    shown = run.steps["train"].run_metadata
    assert shown["training"]["train_steps"] == rehearsal.STEPS
    assert isinstance(shown["peak_memory"], int)  # a size by its type: test_metadata.py
    assert run.steps["promote"].run_metadata["checks"] == {"parity": "passed, adapter: proven"}
    assert [one for step in run.steps.values() for one in step.outputs if one == "report"] == [
        "report"
    ]

    # The weights of the output and of the store are one file, the card is not
    bundle = artifact(version, "adapter_bundle").folder
    ours = outputs / name / "adapter"
    assert (bundle / "adapter_model.safetensors").samefile(ours / "adapter_model.safetensors")
    assert not (bundle / "README.md").samefile(ours / "README.md")
    command(config, "production", tmp_path / "mine")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == FILES
    answers = json.loads((tmp_path / "mine" / "answers.json").read_text())
    assert answers["generation"]["max_new_tokens"] == 8


@pytest.mark.long
def test_on_separate_hosts_one_is_killed_and_the_caller_gets_it_all(
    config, command, tmp_path, monkeypatch
):
    def of_this_host(*_, **__):
        raise AssertionError("the hardware and the files of the caller's host decide nothing")

    monkeypatch.setattr(finetune, "_check_host", of_this_host)
    monkeypatch.setattr(finetune, "_check_inputs", of_this_host)
    name, outputs = config.run.name, tmp_path / "outputs"
    hosts = {"hidden": str(outputs), "rehearsed": True, "kill_at": 2, "restarts": 1}
    with separate_hosts(tmp_path, **hosts) as store:
        said = command(config)
        command(config, "production", tmp_path / "mine")
    assert "held-out loss  3.000 -> 2.000" in said
    for folder in (outputs / name, tmp_path / "mine"):
        assert {path.name for path in folder.iterdir()} == FILES
        assert (folder / "merged" / "model.safetensors").read_bytes() == b"merged"
        assert (folder / "adapter" / "README.md").read_text() == "card"
        assert [proof.export for proof in rehearsal.manifest(folder).parity] == ["adapter"]
        assert "rehearsed" in (folder / "report.html").read_text()
    (version,) = all_versions(config.registry.model)
    assert (version.name, version.stage) == (name, "production")
    assert artifacts(version) == VERSION
    assert artifact(version, "training_record").resumed_from_step == 2
    run = Client().get_pipeline_run(name)
    assert run.steps["load_model"].outputs["base_model"][0].load().dtype == "auto"
    assert artifact(version, "trained_model").model.dtype == "bfloat16", "as found by its host"
    assert not list((store / "finetuning_checkpoints").glob("*/checkpoint-*"))
    disks = sorted(path.name.rsplit("-", 1)[0] for path in (tmp_path / "disks").iterdir())
    assert disks.count("train") == 2
    assert len(disks) == 9


def test_what_a_step_elsewhere_refuses_is_said_here_by_its_own_class(config, command, tmp_path):
    data = config.data.model_copy(
        update={"sources": [config.data.sources[0].model_copy(update={"source": rehearsal.BAD})]}
    )
    with (
        separate_hosts(tmp_path, rehearsed=True),
        pytest.raises(DataError, match=r"acme/bad:1: response is empty\n\(step prepare_data of"),
    ):
        command(config.model_copy(update={"data": data}))
    assert all_versions(config.registry.model) == []
