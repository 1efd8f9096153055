"""One run of a schedule at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def schedule_lock(folder: Path) -> Iterator[int | None]:
    """Lock a schedule's folder and give the descriptor that holds it; None if another has it.

    The folder itself is locked, which works on a full disk too. Who inherits the descriptor holds
    the lock as well.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor if try_lock(descriptor) else None
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Take the lock of an open file, unless another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
