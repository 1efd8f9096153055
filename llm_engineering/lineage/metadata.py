"""What the train step shows of itself in ZenML, by the names that metrics.json has too."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from llm_engineering.model.finetuning.record import TrainingRecord

_SECONDS_BETWEEN = 5.0


def job_metadata(record: TrainingRecord) -> dict[str, Any]:
    """What a remote job's step shows: the same figures as a local one, and what the job cost."""
    shown = _figures(record) | {"held_out_loss_after": record.after.loss}
    if record.job is not None:
        job = record.job.model_dump(exclude={"packages", "python", "platform", "parity"})
        shown |= {f"job_{name}": value for name, value in job.items() if value is not None}
    return shown


def training_progress() -> Callable[[TrainingRecord], None]:
    """A callback for ``train`` that keeps the running step's metadata up to date.

    Written at most every five seconds, and once more when training ends, since each write is a
    request to the ZenML server.
    """
    from zenml import log_metadata

    last = 0.0

    def show(record: TrainingRecord) -> None:
        nonlocal last
        finished = len(record.held_out) > 1
        if not finished and time.monotonic() - last < _SECONDS_BETWEEN:
            return
        last = time.monotonic()
        metadata = _figures(record)
        if finished:
            metadata["held_out_loss_after"] = record.after.loss
        if record.held_out[-1].metrics.rewards is not None:
            metadata |= record.held_out[-1].metrics.rewards.figures
        log_metadata(metadata=metadata)

    return show


def _figures(record: TrainingRecord) -> dict[str, Any]:
    return {
        "train_steps": record.steps,
        "train_loss_last": record.points[-1].loss,
        "tokens_per_second": round(record.tokens_per_second, 1),
        "train_tokens": record.train_tokens,
        "peak_memory_bytes": record.peak_memory_bytes,
        "held_out_loss_before": record.before.loss,
    } | ({"planned_memory_bytes": planned} if (planned := record.planned_memory_bytes) else {})
