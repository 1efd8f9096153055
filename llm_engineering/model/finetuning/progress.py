"""The progress of training: a live bar on a terminal, and a line now and then in every log."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Protocol

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


class Display(Protocol):
    """What a training tells of itself while it goes on."""

    def start(self, steps: int, done: int = 0) -> None:
        """Begin, with ``done`` of ``steps`` optimizer steps behind us."""

    def advance(self, step: int) -> None:
        """Move to ``step`` optimizer steps done."""

    def announce(self, what: str) -> None:
        """Say what is going on while no step is made."""

    def show(self, record: TrainingRecord) -> None:
        """Show the newest figures of the record."""

    def stop(self) -> None:
        """End."""


class ProgressDisplay:
    """Shows steps, losses, tokens per second and the time left."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._steps = 0
        self._note = ""

    def start(self, steps: int, done: int = 0) -> None:
        """Begin, with ``done`` of ``steps`` optimizer steps behind us."""
        self._steps = steps
        if sys.stderr is None or not sys.stderr.isatty():
            return
        self._bar = Progress(
            TextColumn("[bold]train"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            # A stream of its own: ZenML copies what is written to sys.stderr into the step's log.
            console=Console(file=open(2, "w", closefd=False)),  # noqa: SIM115
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("train", total=steps, completed=done, note="")
        self._bar.start()
        for handler in _terminal_handlers():
            handler.addFilter(_beside_the_bar)

    def advance(self, step: int) -> None:
        """Move to ``step`` optimizer steps done."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def announce(self, what: str) -> None:
        """Say what is going on while no step is made."""
        if self._bar:
            self._bar.update(self._task, note=what)
        logger.info("%s", what)

    def show(self, record: TrainingRecord) -> None:
        """Show the newest figures of the record."""
        parts = []
        if record.points:
            point = record.points[-1]
            parts.append(f"loss {point.loss:.3f}")
            parts.append(f"{point.tokens_per_second:,.0f} tokens/s")
        for name, course in (("held-out", record.held_out), ("validation", record.validation)):
            if course:
                parts.append(f"{name} {course[-1].metrics.loss:.3f} at step {course[-1].step}")
        note = " · ".join(parts)
        if self._bar:
            self._bar.update(self._task, note=note)
        ends = record.steps in (0, self._steps)
        if ends or time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            logger.info("step %d of %d · %s", record.steps, self._steps, note)

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._bar:
            self._bar.stop()
            self._bar = None
            for handler in _terminal_handlers():
                handler.removeFilter(_beside_the_bar)


def _terminal_handlers() -> list[logging.Handler]:
    return [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler)
    ]


def _beside_the_bar(record: logging.LogRecord) -> bool:
    """Keeps from the terminal the lines that tell a log what the bar tells the terminal."""
    return record.name != __name__
