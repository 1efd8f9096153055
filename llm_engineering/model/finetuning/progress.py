"""The progress of training on the terminal: a live bar, or a line now and then in a log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from llm_engineering.model.finetuning.record import TrainingRecord

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


class ProgressDisplay:
    """Shows steps, losses, tokens per second and the time left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._steps = 0
        self._note = ""

    def start(self, steps: int, done: int = 0) -> None:
        """Begin, with ``done`` of ``steps`` optimizer steps behind us."""
        self._steps = steps
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("[bold]train"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("train", total=steps, completed=done, note="")
        self._bar.start()

    def advance(self, step: int) -> None:
        """Move to ``step`` optimizer steps done."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def announce(self, what: str) -> None:
        """Say what is going on while no step is made."""
        if self._bar:
            self._bar.update(self._task, note=what)
        else:
            logger.info("%s", what)

    def show(self, record: TrainingRecord) -> None:
        """Show the newest figures of the record."""
        parts = []
        if record.points:
            point = record.points[-1]
            parts.append(f"loss {point.loss:.3f}")
            parts.append(f"{point.tokens_per_second:,.0f} tokens/s")
        if record.held_out:
            held_out = record.held_out[-1]
            parts.append(f"held-out {held_out.metrics.loss:.3f} at step {held_out.step}")
        note = " · ".join(parts)
        if self._bar:
            self._bar.update(self._task, note=note)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES or not record.points:
            self._last_line = time.monotonic()
            logger.info("step %d of %d · %s", record.steps, self._steps, note)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._bar:
            self._bar.stop()
            self._bar = None
