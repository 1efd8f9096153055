"""What is said of a run that was ended by a signal: how to go on, so that it works as it is typed."""

from __future__ import annotations

import json
import signal
from itertools import count
from pathlib import Path

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.errors import InterruptedRunError, TrainingError, TrainingStoppedError
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
