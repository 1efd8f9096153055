"""Ctrl-C, SIGTERM and SIGHUP: a training finishes its step and saves a checkpoint; all else ends at once.

A second signal ends a training at once, too.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal that ends this program as Ctrl-C does.

    Args:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def signal_of(interrupt: KeyboardInterrupt) -> int:
    """The signal that an interruption came from: SIGINT, unless it says otherwise."""
    return interrupt.number if isinstance(interrupt, Stopped) else int(signal.SIGINT)


def end_as_by_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP raise ``Stopped`` from now on; one that is ignored (nohup) stays so."""
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


class StopRequest(threading.Event):
    """Set by the first signal, which it remembers."""

    number: int | None = None


@contextmanager
def stop_after_step(asked: threading.Event | None = None) -> Iterator[threading.Event]:
    """While inside, the first signal only sets the event that is given; the next one ends at once.

    A signal that nobody heeded until the end, since there was no further step, is delivered then.

    Args:
        asked: An event that others set; then signals are left as they are, as outside of the main thread.
    """
    if asked is not None or threading.current_thread() is not threading.main_thread():
        yield asked or threading.Event()
        return
    request = StopRequest()
    former: dict[signal.Signals, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        request.number = number
        _restore(former)
        logger.warning(
            "%s: stopping after the step under way, with a checkpoint; once more: at once, without",
            signal.Signals(number).name,
        )
        request.set()

    for number in (signal.SIGINT, *_ENDING):
        if signal.getsignal(number) is not signal.SIG_IGN:
            former[number] = signal.signal(number, ask)
    try:
        yield request
    except BaseException:
        _restore(former)
        raise
    _restore(former)
    if request.number is not None:
        os.kill(os.getpid(), request.number)


def _restore(former: dict[signal.Signals, Any]) -> None:
    for number, handler in former.items():
        signal.signal(number, handler)
