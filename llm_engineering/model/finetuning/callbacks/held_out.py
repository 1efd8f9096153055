"""The held-out rows: measured before, in passing and after; their best weights, and patience.

Where they decide what is saved, a part of them is looked at in passing (``validation``), and the
others are measured before and after alone: a choice flatters the rows that it was made by.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import HardwareError
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.finetuning.best_weights import BestWeights
from llm_engineering.model.finetuning.callbacks.callback import Callback
from llm_engineering.model.finetuning.callbacks.stop_request import StopRequest
from llm_engineering.model.finetuning.clock import Clock
from llm_engineering.model.finetuning.progress import Display
from llm_engineering.model.finetuning.record import HeldOutPoint, TrainingRecord
from llm_engineering.model.live import LiveModel
from llm_engineering.peers import Peers
from llm_engineering.planning import hardware

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)


class HeldOut(Callback):
    """Measures a live model on rows that it does not learn, into the record.

    Args:
        live_model: The model.
        rows: The held-out split, which judges what was trained.
        validation: The split that is looked at in passing; None: ``rows`` serve both.
        record: Receives the metrics.
        settings: When to measure, and what to do about it.
        evaluate: Batch size.
        best: Keeps the best weights.
        resumes_from: The checkpoint that training goes on from, if any.
        display: Shows the progress.
        stop: After a request to stop nothing is measured in passing.
        peers: The processes that train together, which share the rows.
        changed_later: Whether another callback changes the model once training has ended, and asks
            for the last measurement itself.
        clock: Stands still while this is done.
    """

    def __init__(
        self,
        live_model: LiveModel,
        rows: datasets.Dataset,
        validation: datasets.Dataset | None,
        record: TrainingRecord,
        settings: TrainSettings,
        evaluate: EvaluateSettings,
        *,
        best: BestWeights,
        resumes_from: Path | None,
        display: Display,
        stop: StopRequest,
        peers: Peers,
        changed_later: bool,
        clock: Clock,
    ) -> None:
        self._live_model, self._rows, self._record = live_model, rows, record
        self._validation = validation
        self._settings, self._evaluate = settings, evaluate
        self._best, self._resumes_from, self._display = best, resumes_from, display
        self._stop, self._peers, self._changed_later = stop, peers, changed_later
        self._clock = clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure what training starts from, unless the record has it."""
        if self._resumes_from is not None and self._peers.is_first():
            self._best.restore_from(self._resumes_from)
        if not self._record.held_out:
            self.measure(0)
        if not self._looked_at:
            self._look(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure in passing, and end where the loss has ceased to fall."""
        every = self._settings.evaluate_every
        last = state.global_step == state.max_steps
        if self._stop.heeded or not every or state.global_step % every or last:
            return
        self._look(state.global_step)
        self._looked_at[-1].metrics.forget_rows()
        patience = self._settings.early_stopping_patience
        if patience and self._measured_since_best() >= patience:
            logger.info("the held-out loss has not fallen %d times in a row", patience)
            control.should_training_stop = self._record.stopped_early = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure what is saved: the last weights, or the best."""
        if self._settings.keep_best:
            self._look(state.global_step)
            self._take_best(state.global_step)
        elif not self._changed_later:
            self.measure(state.global_step)

    def measure(self, step: int) -> None:
        """Measure the model as it is on the rows that judge it, after so many steps.

        Raises:
            HardwareError: The batch does not fit the device.
        """
        record = self._record
        metrics = self._metrics(self._rows, "held-out", record.held_out)
        record.held_out = _with_point(record.held_out, step, metrics)
        self._display.show(record)

    @property
    def _looked_at(self) -> list[HeldOutPoint]:
        """What decides: the validation rows' course, or that of the held-out rows."""
        return self._record.held_out if self._validation is None else self._record.validation

    def _look(self, step: int) -> None:
        """Measure the rows that decide, and keep the weights if they are the best so far."""
        record = self._record
        if self._validation is None:
            self.measure(step)
        else:
            metrics = self._metrics(self._validation, "validation", record.validation)
            record.validation = _with_point(record.validation, step, metrics)
            self._display.show(record)
        is_best = self._settings.keep_best and self._best_point().step == step
        if is_best and self._peers.is_first():
            with self._clock.paused():
                self._best.keep(self._live_model.model)

    def _metrics(
        self, rows: datasets.Dataset, what: str, course: list[HeldOutPoint]
    ) -> HeldOutMetrics:
        self._display.announce(f"evaluating {len(rows)} {what} rows")
        before = course[0].metrics.rewards if course else None
        try:
            with self._clock.paused():
                return objective_metrics(
                    self._live_model.model,
                    rows,
                    objective=self._settings.objective,
                    beta=self._settings.beta,
                    reference=before.log_probabilities if before else None,
                    batch_size=self._evaluate.batch_size,
                    pad_id=self._live_model.tokenizer.pad_token_id,
                    peers=self._peers,
                )
        except RuntimeError as error:
            if not hardware.is_out_of_memory(error):
                raise
            raise HardwareError(
                f"out of memory in the held-out evaluation: lower evaluate.batch_size "
                f"({self._evaluate.batch_size})"
            ) from None

    def _best_point(self) -> HeldOutPoint:
        trained = [point for point in self._looked_at if point.step > 0]
        return min(trained or self._looked_at, key=lambda point: point.metrics.loss)

    def _measured_since_best(self) -> int:
        return sum(point.step > self._best_point().step for point in self._looked_at)

    def _take_best(self, last: int) -> None:
        """Load the best weights, unless they are the last ones, and measure what was not."""
        record = self._record
        record.kept_step = self._best_point().step
        if record.kept_step != last:
            logger.info("keeping the weights of step %d", record.kept_step)
            self._peers.wait_for_all()  # the first has written them
            self._best.load_into(self._live_model.model)
            self._looked_at[-1].metrics.forget_rows()
        if self._validation is not None or record.kept_step != last:
            self.measure(record.kept_step)


def _with_point(
    course: list[HeldOutPoint], step: int, metrics: HeldOutMetrics
) -> list[HeldOutPoint]:
    """A step measured in passing is measured again, for the rows' own losses."""
    others = [point for point in course if point.step != step]
    return sorted([*others, HeldOutPoint(step=step, metrics=metrics)], key=lambda one: one.step)
