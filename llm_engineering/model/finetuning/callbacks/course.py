"""The course of a training: its steps, losses, tokens, seconds and memory, into the record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import TrainingError
from llm_engineering.model.finetuning.callbacks.callback import Callback
from llm_engineering.model.finetuning.progress import Display
from llm_engineering.model.finetuning.record import TrainingPoint, TrainingRecord
from llm_engineering.peers import Peers
from llm_engineering.planning import hardware

Progress = Callable[[TrainingRecord], None]


class Course(Callback):
    """Fills a record, and shows it at every logged step.

    Args:
        record: What came before a resumption is in it already.
        settings: The optimisation.
        display: Shows the progress.
        peers: The processes that train together.
        on_progress: Called with the record at every logged step.
    """

    def __init__(
        self,
        record: TrainingRecord,
        settings: TrainSettings,
        display: Display,
        peers: Peers,
        on_progress: Progress | None,
    ) -> None:
        self._record, self._settings, self._display = record, settings, display
        self._peers, self._on_progress = peers, on_progress
        self._step_began = 0.0
        self._logged_tokens = record.train_tokens
        self._logged_seconds = record.train_seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say on what is trained, and from where."""
        self._record.effective_batch = self._settings.rows_in_step
        self._record.device = self._peers.on_all(hardware.device_name())
        self._display.start(state.max_steps, done=state.global_step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._step_began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step."""
        record = self._record
        record.train_seconds += time.perf_counter() - self._step_began
        record.steps, record.epochs = state.global_step, float(state.epoch or 0.0)
        record.train_tokens = int(state.num_input_tokens_seen)
        record.peak_memory_bytes = max(record.peak_memory_bytes, hardware.peak_memory_bytes())
        self._display.advance(state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any
    ) -> None:
        """Add a point.

        Raises:
            TrainingError: The loss is not finite.
        """
        if "loss" not in logs:
            return
        record, settings = self._record, self._settings
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is {logs['loss']} at step {state.global_step}: lower "
                f"train.learning_rate ({settings.learning_rate}) or raise train.warmup_steps "
                f"({settings.warmup_steps})"
            )
        seconds = record.train_seconds - self._logged_seconds
        tokens = record.train_tokens - self._logged_tokens
        self._logged_seconds, self._logged_tokens = record.train_seconds, record.train_tokens
        record.points.append(
            TrainingPoint(
                step=state.global_step,
                loss=logs["loss"],
                learning_rate=logs["learning_rate"],
                grad_norm=logs.get("grad_norm"),
                tokens_per_second=tokens / seconds if seconds else 0.0,
                reward_margin=logs.get("rewards/margins"),
            )
        )
        self._display.show(record)
        if self._on_progress:
            self._on_progress(record)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """No more steps are shown."""
        self._display.stop()
