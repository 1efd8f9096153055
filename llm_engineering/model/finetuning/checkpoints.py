"""Checkpoints that are known to be complete, and the choice of the one to resume from."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llm_engineering.errors import TrainingError

RECORD = "training_record.json"
"""The course so far, in every checkpoint."""
COMPLETE = "complete.json"
"""In every complete one: its files and their sizes."""
IDENTITY = "identity.json"
"""Beside a run's checkpoints: what decides its training."""


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: ``step`` optimizer steps of the run whose work folder is ``run``."""

    folder: Path
    step: int
    run: Path


def open_work_folder(run: Path, identity: dict[str, str]) -> IO[str]:
    """Create a run's work folder and lock it for as long as the returned file stays open.

    Args:
        run: The run's own work folder.
        identity: What decides the training, by name; only an equal run may resume from here.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = (run / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    _write_atomically(run / IDENTITY, identity)
    return lock


def mark_complete(checkpoint: Path) -> None:
    """Say that a checkpoint is complete: the last thing written to it, with every file's size."""
    sizes = {
        str(path.relative_to(checkpoint)): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file()
    }
    _write_atomically(checkpoint / COMPLETE, sizes)


def remove_older(folder: Path, keep: int) -> None:
    """Remove all but the newest checkpoints of a run.

    To be called once the newest is complete: a kill before that still leaves one to go on from.

    Args:
        folder: Holds the run's checkpoints.
        keep: How many are kept.
    """
    found = sorted(folder.glob("checkpoint-*"), key=_step, reverse=True)
    for checkpoint in found[keep:]:
        shutil.rmtree(checkpoint, ignore_errors=True)


def interrupted_checkpoints(work: Path) -> list[Checkpoint]:
    """Complete checkpoints of all runs under ``work`` that no process is running, newest first."""
    found = [
        Checkpoint(folder, _step(folder), identity.parent)
        for identity in work.glob(f"*/{IDENTITY}")
        if not is_running(identity.parent)
        for folder in identity.parent.glob("checkpoints/checkpoint-*")
        if _is_complete(folder)
    ]
    return sorted(found, key=lambda c: (c.step, c.folder.stat().st_mtime), reverse=True)


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest complete checkpoint of one run, whether or not it is running."""
    found = [
        Checkpoint(folder, _step(folder), run)
        for folder in run.glob("checkpoints/checkpoint-*")
        if _is_complete(folder)
    ]
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def newest_equal_checkpoint(run: Path, identity: dict[str, str]) -> Checkpoint | None:
    """The newest complete checkpoint of one run, if that was the same training."""
    try:
        theirs = json.loads((run / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return newest_checkpoint(run) if theirs == identity else None


def require_interrupted(work: Path) -> list[Checkpoint]:
    """The interrupted checkpoints under ``work``, newest first.

    Raises:
        TrainingError: There is none.
    """
    found = interrupted_checkpoints(work)
    if not found:
        raise TrainingError(
            f"--resume: no interrupted run with a complete checkpoint under {work}; "
            "start without --resume"
        )
    return found


def checkpoint_to_resume(work: Path, identity: dict[str, str]) -> Checkpoint:
    """The newest complete checkpoint of an interrupted run with the same identity.

    Raises:
        TrainingError: There is none; says in what the nearest interrupted run differs.
    """
    candidates = require_interrupted(work)
    differences = []
    for checkpoint in candidates:
        other = json.loads((checkpoint.run / IDENTITY).read_text(encoding="utf-8"))
        different = sorted(name for name in identity if identity[name] != other.get(name))
        if not different:
            return checkpoint
        differences.append((len(different), checkpoint, different))
    _, nearest, different = min(differences, key=lambda entry: entry[0])
    raise TrainingError(
        f"--resume: the interrupted run {nearest.run.name} (step {nearest.step}) was another "
        f"training: its {' and '.join(different)} differ. Use its configuration and data, or "
        "start without --resume"
    )


def is_running(run: Path) -> bool:
    """Whether a process is training in this work folder."""
    try:
        # Not made by a look: a folder would be young again.
        with (run / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _is_complete(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _write_atomically(path: Path, value: dict[str, str] | dict[str, int]) -> None:
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
