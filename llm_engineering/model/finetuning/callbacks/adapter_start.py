"""The adapter's start, and what becomes of it at the end, as ``lora.init`` says."""

from __future__ import annotations

from typing import Any

from llm_engineering.initialisations import Initialisation
from llm_engineering.initialisations.initialisation import Beginning
from llm_engineering.model.finetuning.callbacks.callback import Callback
from llm_engineering.model.finetuning.callbacks.held_out import HeldOut
from llm_engineering.model.finetuning.record import TrainingRecord


class AdapterStart(Callback):
    """Carries an initialisation through a training.

    Args:
        model: With an adapter.
        initialisation: Of this training.
        beginning: What it begins with.
        held_out: Has measured the base model when the adapter gets its start, and measures again
            what the end changed.
        record: Says which step's weights are saved.
    """

    def __init__(
        self,
        model: Any,
        initialisation: Initialisation,
        beginning: Beginning,
        held_out: HeldOut,
        record: TrainingRecord,
    ) -> None:
        self._model, self._initialisation, self._beginning = model, initialisation, beginning
        self._held_out, self._record = held_out, record

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        self._initialisation.begin(self._model, self._beginning)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish: in 16 bit the same sum may round otherwise, so it is measured as it is saved."""
        if self._initialisation.changes_at_end:
            self._initialisation.finish(self._model)
            self._held_out.measure(self._record.kept_step or state.global_step)
