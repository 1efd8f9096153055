"""Which rows are held out: decided by a key of each row, so that data that grows moves none back."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from llm_engineering.data.rows.row_store import RowNumbers


def is_held_out(split_keys: NDArray[numpy.uint64], fraction: float) -> NDArray[numpy.bool]:
    """Which of the rows with these keys are held out: about ``fraction`` of them, at least one.

    Data that grows never moves a trained row among them, and rows that share a key stay together.

    Args:
        split_keys: As ``RowIndex.split_keys`` gives them, shape ``(rows,)``.
        fraction: From 0 to 1.
    """
    shares = split_keys / 2**64
    return shares <= max(fraction, shares.min(initial=1))


def first_of(order: NDArray[numpy.uint64], count: int | None) -> RowNumbers:
    """Positions, ascending, of the so many smallest: a draw that growing data changes little.

    Args:
        order: Evenly spread numbers that rows decide by what they say, shape ``(rows,)``.
        count: How many, at most; None: all.
    """
    import numpy

    return numpy.sort(order.argsort(kind="stable")[:count])
