"""Experiment trackers beside ZenML: transformers' own callbacks, if their packages are installed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from llm_engineering.configuration.train import Tracker
from llm_engineering.errors import SetupError

# Name in transformers, module, and distribution.
_KNOWN: dict[Tracker, tuple[str, str, str]] = {
    "mlflow": ("mlflow", "mlflow", "mlflow"),
    "wandb": ("wandb", "wandb", "wandb"),
    "comet": ("comet_ml", "comet_ml", "comet-ml"),
    "tensorboard": ("tensorboard", "tensorboard", "tensorboard"),
}


def require_trackers(trackers: Sequence[Tracker]) -> None:
    """Check that the trackers' packages are installed, without importing them.

    Raises:
        SetupError: Names those that are missing, and the command that installs them.
    """
    missing = [name for name in trackers if importlib.util.find_spec(_KNOWN[name][1]) is None]
    if missing:
        packages = " ".join(_KNOWN[name][2] for name in missing)
        raise SetupError(
            f"train.trackers: {', '.join(missing)} is not installed; "
            f"`.venv/bin/pip install {packages}`, or leave it out: ZenML tracks every run"
        )


def report_to(trackers: Sequence[Tracker], run: Path) -> list[str] | str:
    """``TrainingArguments.report_to`` of these trackers.

    TensorBoard's files go to ``tensorboard/<run>`` beside the runs' output, unless
    TENSORBOARD_LOGGING_DIR says otherwise: the work folder ends with the run.

    Args:
        trackers: Their names.
        run: The run's work folder.
    """
    if "tensorboard" in trackers:
        folder = run.parent.parent / "tensorboard" / run.name
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder))
    return [_KNOWN[name][0] for name in trackers] or "none"
