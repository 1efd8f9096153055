"""The course of a training: its steps, losses, tokens, seconds and memory, into the record."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import TrainingError
from llm_engineering.model.finetuning.callbacks.callback import Callback
from llm_engineering.model.finetuning.clock import Clock
from llm_engineering.model.finetuning.progress import Display
from llm_engineering.model.finetuning.record import TrainingPoint, TrainingRecord
from llm_engineering.model.finetuning.token_count import TokenCount
from llm_engineering.peers import Peers
from llm_engineering.planning import hardware

Progress = Callable[[TrainingRecord], None]


class Course(Callback):
    """Fills a record, and shows it at every logged step.

    Between logged steps nothing is asked of the device or of the other processes, which would wait
    for them.

    Args:
        record: What came before a resumption is in it already.
        settings: The optimisation.
        display: Shows the progress.
        peers: The processes that train together.
        on_progress: Called with the record at every logged step.
        clock: Shows the seconds of training.
        tokens: Counts this process's tokens.
    """

    def __init__(
        self,
        record: TrainingRecord,
        settings: TrainSettings,
        display: Display,
        peers: Peers,
        on_progress: Progress | None,
        *,
        clock: Clock,
        tokens: TokenCount,
    ) -> None:
        self._record, self._settings, self._display = record, settings, display
        self._peers, self._on_progress = peers, on_progress
        self._clock, self._tokens = clock, tokens
        self._tokens_before = record.train_tokens
        self._logged_tokens = record.train_tokens
        self._logged_seconds = record.train_seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say on what is trained, and from where."""
        self._record.effective_batch = self._settings.rows_in_step
        self._record.device = self._peers.on_all(hardware.device_name())
        self._display.start(state.max_steps, done=state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock, before the first rows are fetched."""
        self._clock.start()
        self._tokens.forget_waiting()

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a micro-batch."""
        self._tokens.batch_is_trained()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step, and its last micro-batch."""
        self._tokens.batch_is_trained()
        self._record.steps, self._record.epochs = state.global_step, float(state.epoch or 0.0)
        self._display.advance(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What a checkpoint keeps is up to date."""
        self._sum_up()

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
        self._sum_up()
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
                aux_loss=logs.get("aux_loss"),
            )
        )
        self._display.show(record)
        if self._on_progress:
            self._on_progress(record)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """No more steps are made or shown."""
        self._clock.stop()
        self._sum_up()
        self._display.stop()

    def _sum_up(self) -> None:
        record = self._record
        trained = sum(self._peers.all_values(self._tokens.trained))
        record.train_tokens = self._tokens_before + trained
        record.train_seconds = self._clock.seconds
        record.peak_memory_bytes = max(record.peak_memory_bytes, hardware.peak_memory_bytes())
