"""The pipeline where every step has a process, a disk and a host of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from separate_hosts import ROOT
from separate_hosts.fixtures import separate_hosts
from zenml.client import Client

from llm_engineering.configuration import to_yaml
from llm_engineering.registry.versions import all_versions, artifact

pytestmark = pytest.mark.slow


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Give tools/run.py a configuration and flags; returns what it prints."""
    monkeypatch.syspath_prepend(str(ROOT))
    from tools.run import main

    def run(config: Any, *flags: str) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(to_yaml(config))
        done = CliRunner().invoke(main, [*flags, "--config", str(path)])
        if done.exit_code:
            for log in sorted((tmp_path / "disks").glob("*/log"), key=os.path.getmtime)[-1:]:
                print(log, log.read_text()[-5000:])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    return run


def disks(tmp_path: Path, step: str) -> list[Path]:
    return sorted((tmp_path / "disks").glob(f"{step}-*"), key=lambda path: path.stat().st_ctime)


@pytest.mark.long
def test_killed_restarted_exported_promoted_and_pulled(make_config, command, tmp_path):
    outputs = tmp_path / "outputs"
    config = make_config(
        {
            "model.dtype": "auto",
            "export.merged_16bit": True,
            "zenml": {"retries": {"max_retries": 1}},
            "registry.model": "hosts",
            "run.name": "apart",
            "train.max_steps": 8,
            "train.learning_rate": 0.003,
            "evaluate.answers": {"scorers": ["rouge_l"], "rows": 4, "max_new_tokens": 8},
        }
    )
    hosts = {"hidden": str(outputs), "kill_at": 2, "restarts": 1}
    with separate_hosts(tmp_path, **hosts) as store:
        said = command(config, "--finetune")
        command(config, "--pull", "production", str(tmp_path / "mine"))

    # Nothing was on the caller's disk but what the command itself wrote from the store
    names = {"adapter", "merged", "metrics.json", "manifest.json", "promotion.json", "report.html"}
    for folder in (outputs / "apart", tmp_path / "mine"):
        assert {path.name for path in folder.iterdir()} == {*names, "answers.json"}
        answers = json.loads((folder / "answers.json").read_text())
        assert len(answers["rows"]) == 4
        assert {"tokenizer.json", "chat_template.jinja", "README.md"} <= {
            path.name for path in (folder / "adapter").iterdir()
        }
        assert (folder / "merged" / "README.md").is_file()
    metrics = json.loads((outputs / "apart" / "metrics.json").read_text())
    before, after = metrics["held_out_loss_before"], metrics["held_out_loss_after"]
    assert f"held-out loss  {before:.3f} -> {after:.3f}" in said
    assert "production     promoted: the first version to pass all" in said

    # The step that was killed went on from the store, on another disk
    _killed, restarted = disks(tmp_path, "train")
    assert "resuming apart from step" in (restarted / "log").read_text()
    (version,) = all_versions("hosts")
    assert artifact(version, "training_record").resumed_from_step >= 2
    assert not list((store / "finetuning_checkpoints").glob("*/checkpoint-*"))

    # No other step held the model, and what was left open was resolved where it was trained
    loaded = {path.parent.name.rsplit("-", 1)[0] for path in (tmp_path / "disks").glob("*/loaded")}
    assert loaded == {"train"}
    run = Client().get_pipeline_run("apart")
    assert run.steps["load_model"].outputs["base_model"][0].load().dtype == "auto"
    assert artifact(version, "trained_model").model.dtype == "float32"
    manifest = json.loads((outputs / "apart" / "manifest.json").read_text())
    assert [proof["export"] for proof in manifest["parity"]] == ["adapter", "merged_16bit"]
    for name in ("adapter_bundle", "merged_model", "metrics", "manifest", "report", "promotion"):
        assert version.get_artifact(name) is not None, name


@pytest.mark.long
def test_preferences_and_what_a_failing_step_says(preference_config, command, tmp_path):
    quick = {"evaluate.parity_rows": 0, "registry.promote": False, "evaluate.samples": 0}
    config = preference_config("dpo", {**quick, "run.name": "pairs", "registry.model": "pairs"})
    with separate_hosts(tmp_path, hidden=str(tmp_path / "outputs")):
        said = command(config, "--finetune")
        assert "rewards        accuracy" in said
        assert (tmp_path / "outputs" / "pairs" / "report.html").is_file()

        rows = Path(config.data.sources[0].source)
        rows.write_text('{"prompt": "What?"}\n')
        bad = config.model_copy(update={"run": config.run.model_copy(update={"name": "bad"})})
        with pytest.raises(AssertionError) as failed:
            command(bad, "--finetune")
    assert f"error: {rows}:1: " in str(failed.value)
    assert "(step prepare_data of bad)" in str(failed.value)
