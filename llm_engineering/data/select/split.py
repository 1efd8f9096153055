"""Which rows are held out: decided by a key of each row, so that data that grows moves none back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from llm_engineering.data.rows.row_store import RowNumbers

_CHUNK = 2**20  # rows


def is_held_out(split_keys: NDArray[numpy.uint64], fraction: float) -> NDArray[numpy.bool]:
    """Which of the rows with these keys are held out: about ``fraction`` of them, at least one.

    Data that grows never moves a trained row among them, and rows that share a key stay together.

    Args:
        split_keys: As ``RowIndex.split_keys`` gives them, shape ``(rows,)``.
        fraction: From 0 to 1.
    """
    held_out = split_keys.astype(bool)
    limit = max(fraction, int(split_keys.min()) / 2**64) if len(split_keys) else fraction
    for start in range(0, len(split_keys), _CHUNK):  # few of the quotients are in memory
        part = slice(start, start + _CHUNK)
        held_out[part] = split_keys[part].astype("float64") / 2**64 <= limit
    return held_out


def first_of(order: NDArray[numpy.uint64], count: int | None) -> RowNumbers:
    """Positions, ascending, of the so many smallest: a draw that growing data changes little.

    Args:
        order: Evenly spread numbers that rows decide by what they say, shape ``(rows,)``.
        count: How many, at most; None: all.
    """
    import numpy

    if count is None or count >= len(order):
        return numpy.arange(len(order))
    return numpy.sort(order.argsort(kind="stable")[:count])
