"""Which rows are held out: decided by a key of each row, so that data that grows moves none back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_CHUNK = 2**20  # rows


def is_held_out(split_keys: NDArray[numpy.uint64], fraction: float) -> NDArray[numpy.bool]:
    """Which of the rows with these keys are held out: about ``fraction`` of them, at least one.

    Data that grows never moves a trained row among them, and rows that share a key stay together.

    Args:
        split_keys: As ``keys.split_key`` gives them, shape ``(rows,)``.
        fraction: From 0 to 1.
    """
    held_out = split_keys.astype(bool)
    limit = max(fraction, int(split_keys.min()) / 2**64) if len(split_keys) else fraction
    for start in range(0, len(split_keys), _CHUNK):  # few of the quotients are in memory
        part = slice(start, start + _CHUNK)
        held_out[part] = split_keys[part].astype("float64") / 2**64 <= limit
    return held_out
