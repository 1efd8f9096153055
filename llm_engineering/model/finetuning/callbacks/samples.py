"""Answers to the same held-out prompts, now and then while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.model.evaluation.samples import answers, choose_prompts
from llm_engineering.model.finetuning.callbacks.callback import Callback
from llm_engineering.model.finetuning.callbacks.stop_request import StopRequest
from llm_engineering.model.finetuning.clock import Clock
from llm_engineering.model.finetuning.progress import Display
from llm_engineering.model.finetuning.record import SamplePoint, TrainingRecord
from llm_engineering.model.live import LiveModel

if TYPE_CHECKING:
    import datasets


class Samples(Callback):
    """Adds answers to the record, as often as ``evaluate.samples_every`` says.

    Args:
        live_model: Answers.
        rows: The held-out split.
        record: Receives the answers.
        evaluate: How many prompts, how often, and how long an answer may be.
        stop_ids: Token ids that end an answer.
        display: Shows the progress.
        stop: After a request to stop nothing is answered.
        clock: Stands still while this is done.
    """

    def __init__(
        self,
        live_model: LiveModel,
        rows: datasets.Dataset,
        record: TrainingRecord,
        evaluate: EvaluateSettings,
        *,
        stop_ids: frozenset[int],
        display: Display,
        stop: StopRequest,
        clock: Clock,
    ) -> None:
        self._live_model, self._record, self._evaluate = live_model, record, evaluate
        self._stop_ids, self._display, self._stop = stop_ids, display, stop
        self._clock = clock
        self._prompts = (
            choose_prompts(rows, evaluate.samples, live_model.tokenizer)
            if evaluate.samples_every
            else []
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer, if it is time."""
        every = self._evaluate.samples_every
        if self._stop.heeded or not every or state.global_step % every:
            return
        self._display.announce(f"answering {len(self._prompts)} held-out prompts")
        with self._clock.paused():
            found = answers(
                self._live_model.model,
                self._live_model.tokenizer,
                self._prompts,
                max_new_tokens=self._evaluate.max_new_tokens,
                stop_ids=self._stop_ids,
            )
        self._record.samples.append(SamplePoint(step=state.global_step, answers=found))
