"""A launcher that is ended from outside leaves its job running, and says so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class LauncherEndedError(SystemExit):
    """The launching process was asked to end from outside; its job goes on."""


@contextmanager
def ending_leaves_the_job() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP end this process in words: the job goes on.

    Only Ctrl-C stops a job: a host that shuts down, or a closed terminal, says nothing of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise LauncherEndedError(128 + number)

    former = {
        number: signal.signal(number, end)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup wants it
    }
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
