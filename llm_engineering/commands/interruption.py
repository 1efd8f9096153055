"""What is said of a run that a signal, a full disk or an emptied store ended: how to go on.

What is advised works as it is typed.
"""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.errors import (
    DiskError,
    InterruptedRunError,
    SetupError,
    TrainingError,
    TrainingStoppedError,
)
from llm_engineering.outputs import unproven, work_folder
from llm_engineering.signals import signal_of


def interrupted(
    interrupt: KeyboardInterrupt, config: FinetuningConfig, name: str
) -> InterruptedRunError:
    """The error of a run that ended at once.

    Args:
        interrupt: What ended it.
        config: The run's.
        name: Its name.
    """
    number = signal_of(interrupt)
    what = f"interrupted by {signal.Signals(number).name}"
    if step := _step_to_resume(config, name):
        return InterruptedRunError(
            f"{what}; a checkpoint of step {step} is kept: {_go_on(config)}", number
        )
    return InterruptedRunError(
        f"{what} before the first checkpoint: start it again{_other_name(config)}", number
    )


def stopped(error: TrainingStoppedError, config: FinetuningConfig) -> TrainingStoppedError:
    """The error of a run that stopped after a checkpoint, with how to go on."""
    said = TrainingStoppedError(f"{error}; {_go_on(config)}")
    said.exit_code = error.exit_code
    return said


_FULL = (
    "No space left on device",
    "os error 28",
    "database or disk is full",
    "Disk quota exceeded",
)


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is of a disk without room."""
    return any(
        (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(said in str(one) for said in _FULL)  # safetensors, PyTorch and SQLite have their own
        for one in _chain(error)
    )


def full_disk(error: BaseException, config: FinetuningConfig, name: str) -> DiskError | None:
    """The error of a run that a full disk ended; None if it was something else."""
    if not is_full_disk(error):
        return None
    step = _step_to_resume(config, name)
    again = f"{_go_on(config)} (step {step})" if step else f"start it again{_other_name(config)}"
    return DiskError(
        f"the disk became full ({str(error).splitlines()[0] if str(error) else type(error).__name__}): "
        f"make room (tools/run.py --disk shows what takes how much), then {again}"
    )


def emptied_store(error: BaseException) -> SetupError | None:
    """The error of a run that took a step from the cache whose artifact is gone; None otherwise."""
    for one in _chain(error):
        place = str(getattr(one, "filename", None) or one)
        if isinstance(one, OSError | KeyError) and _is_in_a_store(place):
            return SetupError(
                f"ZenML's artifact store has lost {place}, which a step from the cache left there: run "
                "with --no-cache, which makes it again"
            )
    return None


def _is_in_a_store(place: str) -> bool:
    from zenml.client import Client

    try:
        root = Client().active_stack.artifact_store.path.rstrip("/")
    except Exception:  # asked while an error is told: ZenML may be what fails
        return False
    return f"{root}/" in place


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _go_on(config: FinetuningConfig) -> str:
    return f"continue with --resume{_other_name(config)}"


def _step_to_resume(config: FinetuningConfig, name: str) -> int | None:
    """The step that ``--resume`` would go on from; None if it would find nothing."""
    from llm_engineering.model.finetuning.checkpoints import IDENTITY, checkpoint_to_resume

    work = work_folder(config.run.output_dir)
    try:
        identity = json.loads((work / name / IDENTITY).read_text(encoding="utf-8"))
        return checkpoint_to_resume(work, identity).step
    except (OSError, ValueError, TrainingError):
        return None


def _other_name(config: FinetuningConfig) -> str:
    """A configured name is taken by the run that was interrupted; the next one is another."""
    name = config.run.name
    if name is None:
        return ""
    outputs = Path(config.run.output_dir)
    numbered = (f"{name}-{number}" for number in count(2))
    free = next(each for each in numbered if not _is_used(outputs, each))
    return f" --set run.name={free}"


def _is_used(outputs: Path, name: str) -> bool:
    folders = (outputs / name, unproven(outputs / name), work_folder(outputs) / name)
    return any(folder.exists() for folder in folders)
