"""One training at a time on a host, whichever schedule, checkout or user it is of."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_engineering.errors import SetupError
from llm_engineering.scheduling.lock import try_lock

logger = logging.getLogger(__name__)

# Not TMPDIR, which differs from user to user.
FOLDERS = (Path("/run/lock"), Path("/var/lock"), Path("/tmp"))  # noqa: S108 (opened without following links)
_ASK_EVERY_SECONDS = 5.0


@contextmanager
def turn(queue: str | None, wait: Callable[[float], None]) -> Iterator[list[int]]:
    """Wait until no other training of a queue goes on.

    Args:
        queue: Its name; None: wait for nobody.
        wait: Sleeps so many seconds.

    Yields:
        The descriptor that holds the turn, for the processes that shall hold it on; none without a
        queue.

    Raises:
        SetupError: There is no folder for a lock that all users of the host see.
    """
    if queue is None:
        yield []
        return
    descriptor = _open(f"llm-engineering-finetuning-{queue}.lock")
    try:
        waited = 0.0
        while not try_lock(descriptor):
            if not waited:
                logger.info("waiting for another training of the queue %s to end", queue)
            wait(_ASK_EVERY_SECONDS)
            waited += _ASK_EVERY_SECONDS
        yield [descriptor]
    finally:
        os.close(descriptor)


def _open(name: str) -> int:
    """A file that every user can lock, which needs no more than to read it."""
    problem: OSError | None = None
    for folder in FOLDERS:
        if not folder.is_dir():
            continue
        path = folder / name
        try:
            # Never written to. Another user's is opened without O_CREAT: Linux forbids that in /tmp
            # (fs.protected_regular).
            if not path.exists():
                os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            problem = error
    raise SetupError(
        f"schedule.queue: no lock can be made in {' or '.join(map(str, FOLDERS))} ({problem}); set "
        "schedule.queue: null if nothing else trains on this host"
    )
