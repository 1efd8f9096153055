"""The seconds of a training from end to end, in which nothing else counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from llm_engineering.planning.hardware import wait_for_device


class Clock:
    """Runs while steps are made: data, forward and backward passes, optimizer, log and checkpoints.

    Args:
        seconds: What it shows at first: those of the run that is gone on from.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds, self._since = seconds, 0.0
        self._runs = False

    def start(self) -> None:
        """Run, if it does not."""
        if not self._runs:
            self._since, self._runs = time.perf_counter(), True

    def stop(self) -> None:
        """Stand still, once the device has done what it was given."""
        if self._runs:
            wait_for_device()
            self._seconds, self._runs = self.seconds, False

    @property
    def seconds(self) -> float:
        """What it shows now."""
        return self._seconds + (time.perf_counter() - self._since if self._runs else 0.0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still while something else is done with the model."""
        ran = self._runs
        self.stop()
        try:
            yield
        finally:
            if ran:
                self.start()
