"""The request to stop: the step under way is the last, and a checkpoint is saved of it."""

from __future__ import annotations

import threading
from typing import Any

from llm_engineering.errors import TrainingStoppedError
from llm_engineering.model.finetuning.callbacks.callback import Callback
from llm_engineering.peers import Peers

_ASK_EVERY = 10  # steps: several processes agree, which each of them waits for


class StopRequest(Callback):
    """Heeds an event that any of the processes that train together may see set.

    Args:
        stop: The event; None: nobody asks.
        peers: The processes.
    """

    def __init__(self, stop: threading.Event | None, peers: Peers) -> None:
        self._stop, self._peers = stop, peers
        self.heeded = False
        """Whether training ends by request."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End after this step, unless it is the last one anyway."""
        if self._stop is None:
            return
        step = state.global_step
        if self._peers.ranks() > 1 and step % args.logging_steps and step % _ASK_EVERY:
            return
        if self._peers.any_rank(self._stop.is_set()) and state.global_step != state.max_steps:
            control.should_save = control.should_training_stop = self.heeded = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say where the checkpoint is.

        Raises:
            TrainingStoppedError: If the request was heeded.
        """
        if self.heeded:
            raise TrainingStoppedError(
                f"stopped on request after step {state.global_step} of {state.max_steps}; a "
                f"checkpoint is in {args.output_dir}"
            )
