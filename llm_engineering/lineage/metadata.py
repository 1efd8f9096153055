"""What a step shows of itself in ZenML while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable

from llm_engineering.model.finetuning.record import TrainingRecord

_SECONDS_BETWEEN = 5.0


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
        metadata: dict[str, float | int] = {
            "step": record.steps,
            "train_loss": record.points[-1].loss,
            "tokens_per_second": round(record.tokens_per_second, 1),
            "train_tokens": record.train_tokens,
            "peak_memory_bytes": record.peak_memory_bytes,
            "held_out_loss_before": record.before.loss,
        }
        if finished:
            metadata["held_out_loss_after"] = record.after.loss
        log_metadata(metadata=dict(metadata))

    return show
