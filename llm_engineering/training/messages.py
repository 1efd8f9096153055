"""What the ranks and the process that started them tell each other, over a socket of this host.

Up go the progress and the log of the first rank; down goes the request to stop. The connection is a
lifeline too: a rank ends when the process that started it is gone, however that came about.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from typing import Any

from llm_engineering.model.finetuning.progress import Display
from llm_engineering.model.finetuning.record import TrainingRecord

ADDRESS = "LLM_ENGINEERING_RANKS"
"""Environment variable: the socket's path."""
STOP = "stop"

_LISTS = ("points", "held_out", "validation", "samples")


class Link:
    """A rank's end of the connection."""

    def __init__(self, address: str) -> None:
        self.stop = threading.Event()
        self._connection: Connection[Any, Any] = Client(address)
        self._sending = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, kind: str, *values: Any) -> None:
        """Tell the process that started this rank."""
        with self._sending:
            self._connection.send((kind, *values))

    def _listen(self) -> None:
        try:
            while True:
                if self._connection.recv() == STOP:
                    self.stop.set()
        except (EOFError, OSError):
            os._exit(1)  # nobody is left to train for


class RemoteDisplay:
    """Shows the progress where the ranks were started."""

    def __init__(self, link: Link, record: TrainingRecord) -> None:
        self._link = link
        self._sent = {name: len(getattr(record, name)) for name in _LISTS}

    def start(self, steps: int, done: int = 0) -> None:
        """As ``Display.start``."""
        self._link.send("start", steps, done)

    def advance(self, step: int) -> None:
        """As ``Display.advance``."""
        self._link.send("advance", step)

    def announce(self, what: str) -> None:
        """As ``Display.announce``."""
        self._link.send("announce", what)

    def show(self, record: TrainingRecord) -> None:
        """As ``Display.show``; only what is new travels."""
        new = {name: getattr(record, name)[self._sent[name] :] for name in _LISTS}
        self._sent = {name: len(getattr(record, name)) for name in _LISTS}
        self._link.send("show", record.model_copy(update=new))

    def stop(self) -> None:
        """As ``Display.stop``."""
        self._link.send("stop")


class SilentDisplay:
    """For the ranks whose progress is that of the first."""

    def start(self, steps: int, done: int = 0) -> None:
        """Shows nothing."""

    def advance(self, step: int) -> None:
        """Shows nothing."""

    def announce(self, what: str) -> None:
        """Shows nothing."""

    def show(self, record: TrainingRecord) -> None:
        """Shows nothing."""

    def stop(self) -> None:
        """Shows nothing."""


class LinkHandler(logging.Handler):
    """Sends log lines to where the ranks were started."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line."""
        self._link.send("log", record.name, record.levelno, record.getMessage())


def receive(
    message: tuple[Any, ...],
    record: TrainingRecord,
    display: Display,
    on_progress: Callable[[TrainingRecord], None] | None,
) -> None:
    """Act on a rank's message; ``record`` is kept up to date."""
    kind, *values = message
    if kind == "log":
        name, level, text = values
        logging.getLogger(name).log(level, "%s", text)
    elif kind == "show":
        _absorb(record, values[0])
        display.show(record)
        if on_progress is not None and record.points:
            on_progress(record)
    else:
        getattr(display, kind)(*values)


def _absorb(record: TrainingRecord, news: TrainingRecord) -> None:
    for name in TrainingRecord.model_fields:
        value = getattr(news, name)
        setattr(record, name, [*getattr(record, name), *value] if name in _LISTS else value)
