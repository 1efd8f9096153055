"""The lines of a file, numbered and of bounded length; what every reader of text stands on."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any

from llm_engineering.errors import DataError

LONGEST_ROW = 16 * 2**20
"""Bytes of a row, at most: some four million tokens. It bounds what a file that decompresses
without end, or has no line ends, can take of the memory."""
TOO_LONG = f"is longer than {LONGEST_ROW // 2**20} MiB"

_CHUNK = 2**18  # bytes


def numbered_lines(name: str, stream: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Number the lines of a file from 1; one that is too long is None."""
    number = 0
    while True:
        number += 1
        raw = guarded(name, number, stream.readline, LONGEST_ROW + 1)
        if not raw:
            return
        if len(raw) <= LONGEST_ROW or raw.endswith(b"\n"):
            yield number, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = guarded(name, number, stream.readline, _CHUNK)
        yield number, None


def guarded(name: str, line: int, read: Callable[[int], bytes], size: int) -> bytes:
    """Read, and name the line from which a file cannot be read or decompressed."""
    try:
        return bytes(read(size))
    except (OSError, EOFError, ValueError, zlib.error) as error:  # Arrow's errors are ValueErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}:{line}: cannot be read from here on ({reason})") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's keys and values; ``json`` would keep the last of equal keys and say nothing.

    Raises:
        ValueError: A key is there twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"an object names {twice!r} twice")
    return values


def not_utf8(name: str, line: int) -> DataError:
    return DataError(f"{name}:{line}: is not UTF-8; save it as UTF-8")
