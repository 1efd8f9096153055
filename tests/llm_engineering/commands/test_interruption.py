"""What is said of a run that was ended, and that the advice works."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from llm_engineering.commands.interruption import emptied_store, full_disk, interrupted, stopped
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import TrainingStoppedError
from llm_engineering.model.finetuning.checkpoints import mark_complete, open_work_folder
from llm_engineering.outputs import run_name, work_folder
from llm_engineering.signals import Stopped


def checkpoint(config: FinetuningConfig, name: str, step: int) -> None:
    work = work_folder(config.run.output_dir)
    open_work_folder(work / name, {"data": "a"}).close()
    folder = work / name / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    mark_complete(folder)


def test_before_the_first_checkpoint_resume_is_not_advised(make_config):
    config = make_config()
    error = interrupted(Stopped(15), config, "run")
    assert str(error) == "interrupted by SIGTERM before the first checkpoint: start it again"
    assert error.exit_code == 143
    open_work_folder(work_folder(config.run.output_dir) / "run", {"data": "a"}).close()
    assert "before the first checkpoint" in str(interrupted(KeyboardInterrupt(), config, "run"))


def test_a_checkpoint_of_an_equal_run_is_gone_on_from(make_config):
    config = make_config()
    checkpoint(config, "before", 4)
    open_work_folder(work_folder(config.run.output_dir) / "run", {"data": "a"}).close()
    error = interrupted(KeyboardInterrupt(), config, "run")
    assert str(error) == (
        "interrupted by SIGINT; a checkpoint of step 4 is kept: continue with --resume"
    )
    assert error.exit_code == 130
    open_work_folder(work_folder(config.run.output_dir) / "run", {"data": "b"}).close()
    assert "before the first checkpoint" in str(interrupted(KeyboardInterrupt(), config, "run"))


def test_a_configured_name_is_taken_and_a_free_one_is_advised(make_config, tmp_path):
    config = make_config({"run.name": "mine"})
    checkpoint(config, "mine", 4)
    (tmp_path / "outputs" / "mine-2-unproven").mkdir()
    reason = TrainingStoppedError("stopped on request after step 4 of 8")
    reason.exit_code = 143
    error = stopped(reason, config)
    assert str(error).endswith("of 8; continue with --resume --set run.name=mine-3")
    assert error.exit_code == 143
    free = make_config({"run.name": "mine-3"})
    assert run_name(free, None) == "mine-3", "what is advised is taken"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
    ],
)
def test_a_full_disk_is_told_whoever_met_it(make_config, error):
    config = make_config()
    outer = RuntimeError("the step failed")
    outer.__cause__ = error
    said = full_disk(outer, config, "run")
    assert said is not None
    assert str(said).endswith(
        "(tools/run.py --disk shows what takes how much), then start it again"
    )
    checkpoint(config, "run", 6)
    assert str(full_disk(outer, config, "run")).endswith("continue with --resume (step 6)")
    assert full_disk(ValueError("no"), config, "run") is None


def test_an_emptied_artifact_store_is_told_with_the_way_out(tmp_path):
    from zenml.client import Client

    root = Client().active_stack.artifact_store.path
    with pytest.raises(FileNotFoundError) as caught, Path(root, "gone", "data.json").open():
        pass
    said = str(emptied_store(caught.value))
    assert "gone/data.json" in said
    assert said.endswith("run with --no-cache, which makes it again")
    assert emptied_store(FileNotFoundError(2, "no", str(tmp_path / "x"))) is None
    assert emptied_store(json.JSONDecodeError("no", "", 0)) is None
