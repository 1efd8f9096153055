"""Checkpoints that outlive the disk of the host that wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_engineering.lineage import stored_checkpoints
from llm_engineering.lineage.stored_checkpoints import StoredCheckpoints
from llm_engineering.model.finetuning.checkpoints import (
    checkpoint_to_resume,
    mark_complete,
    newest_equal_checkpoint,
    open_work_folder,
)

SAME, OTHER = {"data": "a"}, {"data": "b"}


@pytest.fixture
def store(tmp_path, monkeypatch):
    made = StoredCheckpoints.__new__(StoredCheckpoints)
    made._root = str(tmp_path / "store")
    monkeypatch.setattr(stored_checkpoints, "_has_ended", lambda run: run != "alive")
    return made


def write(run: Path, step: int, *, complete: bool = True) -> None:
    folder = run / "checkpoints" / f"checkpoint-{step}"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "weights").write_bytes(b"w" * step)
    if complete:
        mark_complete(folder)


def keep(store, run: Path, *steps: int, identity=SAME) -> None:
    """A host that trains, with a disk of its own, and is gone."""
    with open_work_folder(run, identity), store.keeping(run):
        for step in steps:
            write(run, step)


def test_the_newest_comes_back_and_is_gone_on_from(store, tmp_path):
    keep(store, tmp_path / "first" / "run", 2, 4)
    stored = sorted(path.name for path in (tmp_path / "store" / "run").iterdir())
    assert stored == ["checkpoint-4", "identity.json"]

    work = tmp_path / "second"
    store.bring(work, "run", SAME, others=False)
    found = newest_equal_checkpoint(work / "run", SAME)
    assert found is not None
    assert found.step == 4
    assert (found.folder / "inner" / "weights").read_bytes() == b"wwww"
    store.remove("run")
    assert not (tmp_path / "store" / "run").exists()


def test_another_runs_comes_only_if_asked_for_equal_and_ended(store, tmp_path):
    keep(store, tmp_path / "a" / "ended", 2)
    keep(store, tmp_path / "b" / "alive", 6)
    keep(store, tmp_path / "c" / "different", 8, identity=OTHER)
    work = tmp_path / "work"
    store.bring(work, "new", SAME, others=False)
    assert not work.exists()
    store.bring(work, "new", SAME, others=True)
    assert [path.name for path in work.iterdir()] == ["ended"]
    assert checkpoint_to_resume(work, SAME).step == 2


def test_what_is_not_complete_is_not_there(store, tmp_path):
    run = tmp_path / "first" / "run"
    with open_work_folder(run, SAME), store.keeping(run):
        write(run, 2)
        write(run, 4, complete=False)
    (tmp_path / "store" / "run" / "checkpoint-9").mkdir()  # its host was killed while it copied
    store.bring(tmp_path / "second", "run", SAME, others=False)
    assert newest_equal_checkpoint(tmp_path / "second" / "run", SAME).step == 2


def test_a_store_out_of_reach_ends_no_training(store, tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise ConnectionError("out of reach")

    monkeypatch.setattr(stored_checkpoints, "_copy", refuse)
    keep(store, tmp_path / "first" / "run", 2)
    assert "the checkpoint of step 2 is not in the artifact store (ConnectionError" in caplog.text


def test_another_training_of_the_same_name_is_not_gone_on_from(tmp_path):
    run = tmp_path / "run"
    with open_work_folder(run, SAME):
        write(run, 2)
    assert newest_equal_checkpoint(run, OTHER) is None
    (run / "identity.json").write_text(json.dumps(OTHER))
    assert newest_equal_checkpoint(run, OTHER).step == 2
