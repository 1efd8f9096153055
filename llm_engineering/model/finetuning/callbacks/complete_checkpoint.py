"""A checkpoint made complete: the record, the best weights and the adapter's start lie with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_engineering.initialisations import Initialisation
from llm_engineering.model.finetuning.best_weights import BestWeights
from llm_engineering.model.finetuning.callbacks.callback import Callback
from llm_engineering.model.finetuning.checkpoints import RECORD, mark_complete, remove_older
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.peers import Peers


class CompleteCheckpoint(Callback):
    """Adds to what the trainer saved all else that a resumption needs, and says so last.

    Args:
        record: The course so far.
        best: The best weights so far.
        initialisation: What it needs to go on.
        peers: The processes that train together; each saves its part, the first one the rest.
        keep: Newest checkpoints that are kept.
    """

    def __init__(
        self,
        record: TrainingRecord,
        best: BestWeights,
        initialisation: Initialisation,
        peers: Peers,
        keep: int,
    ) -> None:
        self._record, self._best = record, best
        self._initialisation, self._peers, self._keep = initialisation, peers, keep

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Complete the checkpoint that was just saved."""
        self._peers.wait_for_all()  # each has written its part
        if not self._peers.is_first():
            return
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (checkpoint / RECORD).write_text(self._record.model_dump_json(), encoding="utf-8")
        self._best.add_to(checkpoint)
        self._initialisation.add_to(checkpoint)
        mark_complete(checkpoint)
        remove_older(checkpoint.parent, self._keep)
