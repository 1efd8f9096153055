"""Which checkpoints are complete, and which one a run goes on from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llm_engineering.errors import TrainingError
from llm_engineering.model.finetuning.checkpoints import (
    Checkpoint,
    checkpoint_to_resume,
    interrupted_checkpoints,
    is_running,
    mark_complete,
    newest_checkpoint,
    newest_equal_checkpoint,
    open_work_folder,
    remove_older,
    require_interrupted,
)

IDENTITY = {"model": "m", "data": "d", "training settings": "s"}


def a_checkpoint(run: Path, step: int, *, complete: bool = True) -> Path:
    folder = run / "checkpoints" / f"checkpoint-{step}"
    (folder / "parts").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"weights")
    (folder / "parts" / "optimizer.bin").write_bytes(b"state")
    if complete:
        mark_complete(folder)
    return folder


def a_run(work: Path, name: str, *steps: int, **differing: str) -> Path:
    """An interrupted run with complete checkpoints."""
    open_work_folder(work / name, IDENTITY | differing).close()
    for step in steps:
        a_checkpoint(work / name, step)
    return work / name


def names(found: list[Checkpoint]) -> list[tuple[str, int]]:
    return [(checkpoint.run.name, checkpoint.step) for checkpoint in found]


# --- what is complete --------------------------------------------------------------------------


def test_a_marked_checkpoint_is_found_with_its_step_and_run(tmp_path: Path) -> None:
    folder = a_checkpoint(tmp_path, 12)

    assert newest_checkpoint(tmp_path) == Checkpoint(folder, 12, tmp_path)


def test_the_mark_lists_every_file_with_its_size(tmp_path: Path) -> None:
    folder = a_checkpoint(tmp_path, 12)

    stated = json.loads((folder / "complete.json").read_text(encoding="utf-8"))

    assert stated == {"weights.bin": 7, str(Path("parts", "optimizer.bin")): 5}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "complete.json").unlink(),
        lambda folder: (folder / "complete.json").write_text('{"weights.bin": 7'),
        lambda folder: (folder / "weights.bin").write_bytes(b"weight"),
        lambda folder: (folder / "weights.bin").write_bytes(b"weights and more"),
        lambda folder: (folder / "parts" / "optimizer.bin").unlink(),
    ],
    ids=["unmarked", "half a mark", "cut", "longer", "a file less"],
)
def test_what_is_not_as_it_was_marked_is_not_complete(spoil: object, tmp_path: Path) -> None:
    a_run(tmp_path, "run", 2)
    spoil(a_checkpoint(tmp_path / "run", 4))  # type: ignore[operator]

    newest = newest_checkpoint(tmp_path / "run")

    assert newest is not None
    assert newest.step == 2
    assert names(interrupted_checkpoints(tmp_path)) == [("run", 2)]


def test_the_newest_is_told_by_its_number_not_its_text(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        a_checkpoint(tmp_path, step, complete=step != 11)

    newest = newest_checkpoint(tmp_path)

    assert newest is not None
    assert newest.step == 10


def test_a_run_without_a_checkpoint_has_no_newest(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(("keep", "left"), [(1, [10]), (2, [9, 10]), (5, [2, 9, 10])])
def test_the_newest_are_kept(keep: int, left: list[int], tmp_path: Path) -> None:
    for step in (2, 9, 10):
        a_checkpoint(tmp_path, step)
    (tmp_path / "checkpoints" / "notes").mkdir()

    remove_older(tmp_path / "checkpoints", keep)

    remaining = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert remaining == {"notes", *(f"checkpoint-{step}" for step in left)}


def test_what_cannot_be_removed_is_left(tmp_path: Path) -> None:
    a_checkpoint(tmp_path, 2)
    (tmp_path / "checkpoints" / "checkpoint-1").write_text("no folder")

    remove_older(tmp_path / "checkpoints", 1)

    assert [path.name for path in (tmp_path / "checkpoints").glob("*-2")] == ["checkpoint-2"]


# --- what is running ---------------------------------------------------------------------------


def test_a_run_is_running_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "work" / "run"
    lock = open_work_folder(run, IDENTITY)
    a_checkpoint(run, 3)

    assert is_running(run)
    assert interrupted_checkpoints(run.parent) == []
    assert newest_checkpoint(run) is not None  # whether or not it is running

    lock.close()

    assert not is_running(run)
    assert names(interrupted_checkpoints(run.parent)) == [("run", 3)]


def test_a_folder_that_is_not_there_is_not_running(tmp_path: Path) -> None:
    assert not is_running(tmp_path / "nowhere")


def test_opening_again_states_the_new_identity(tmp_path: Path) -> None:
    a_run(tmp_path, "run", 3)
    open_work_folder(tmp_path / "run", IDENTITY | {"data": "other"}).close()

    stated = json.loads((tmp_path / "run" / "identity.json").read_text(encoding="utf-8"))

    assert stated == IDENTITY | {"data": "other"}
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("checkpoints", "identity.json", "lock")
    ]


# --- which one is gone on from -----------------------------------------------------------------


def test_the_furthest_checkpoint_of_all_runs_comes_first(tmp_path: Path) -> None:
    a_run(tmp_path, "one", 2, 10)
    a_run(tmp_path, "two", 4)
    a_run(tmp_path, "none")
    a_checkpoint(tmp_path / "no run", 99)  # its folder states no identity

    assert names(interrupted_checkpoints(tmp_path)) == [("one", 10), ("two", 4), ("one", 2)]
    assert require_interrupted(tmp_path) == interrupted_checkpoints(tmp_path)


def test_of_equal_steps_the_later_written_comes_first(tmp_path: Path) -> None:
    for name, written in (("one", 200), ("two", 300), ("three", 100)):
        os.utime(a_run(tmp_path, name, 4) / "checkpoints" / "checkpoint-4", (written, written))

    assert names(interrupted_checkpoints(tmp_path)) == [("two", 4), ("one", 4), ("three", 4)]


def test_a_run_goes_on_from_its_own_checkpoint_if_it_is_the_same_training(tmp_path: Path) -> None:
    run = a_run(tmp_path, "run", 2, 10)

    found = newest_equal_checkpoint(run, IDENTITY)

    assert found is not None
    assert names([found]) == [("run", 10)]
    assert newest_equal_checkpoint(run, IDENTITY | {"data": "others"}) is None
    assert newest_equal_checkpoint(tmp_path / "none", IDENTITY) is None
    (run / "identity.json").write_text("{")
    assert newest_equal_checkpoint(run, IDENTITY) is None


def test_nothing_to_go_on_from_says_where_it_was_looked_for(tmp_path: Path) -> None:
    a_run(tmp_path, "run")
    a_checkpoint(tmp_path / "run", 4, complete=False)

    for look in (require_interrupted, lambda work: checkpoint_to_resume(work, IDENTITY)):
        with pytest.raises(TrainingError, match=f"no interrupted run .* under {tmp_path};"):
            look(tmp_path)


def test_the_furthest_of_an_equal_run_is_gone_on_from(tmp_path: Path) -> None:
    a_run(tmp_path, "mine", 2, 6)
    a_run(tmp_path, "other", 9, data="another")

    found = checkpoint_to_resume(tmp_path, IDENTITY)

    assert (found.run, found.step) == (tmp_path / "mine", 6)
    assert found.folder == tmp_path / "mine" / "checkpoints" / "checkpoint-6"


def test_another_training_is_not_gone_on_from_and_the_nearest_is_named(tmp_path: Path) -> None:
    a_run(tmp_path, "far", 9, data="another", model="another")
    a_run(tmp_path, "near", 4, data="another")
    a_run(tmp_path, "further", 7, data="another", model="another")

    with pytest.raises(TrainingError) as caught:
        checkpoint_to_resume(tmp_path, IDENTITY)

    assert "the interrupted run near (step 4) was another training: its data differ." in str(
        caught.value
    )


def test_all_that_differs_is_named(tmp_path: Path) -> None:
    a_run(tmp_path, "run", 9, data="another", model="another")

    with pytest.raises(TrainingError, match="its data and model differ"):
        checkpoint_to_resume(tmp_path, IDENTITY)


def test_what_an_older_version_did_not_state_differs(tmp_path: Path) -> None:
    a_run(tmp_path, "run", 9)

    with pytest.raises(TrainingError, match="its starting adapter differ"):
        checkpoint_to_resume(tmp_path, IDENTITY | {"starting adapter": ""})
