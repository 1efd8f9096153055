"""Drawing rows from several sources by their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64's


def draw(
    sources: NDArray[numpy.uint16], split_keys: NDArray[numpy.uint64], weights: Sequence[float]
) -> NDArray[numpy.bool]:
    """Which rows are drawn, so that each source has its share and none is repeated.

    The largest mixture: the source that is scarcest for its weight gives all of its rows. A row's
    split key decides, so that the same rows are drawn again.

    Args:
        sources: Number of each row's source, shape ``(rows,)``.
        split_keys: What decides, the same shape; as of ``keys.split_key``.
        weights: One for each source, above 0.

    Returns:
        A mask of the rows.
    """
    import numpy

    given = [numpy.flatnonzero(sources == number) for number in range(len(weights))]
    unit = min(len(rows) / weight for rows, weight in zip(given, weights, strict=True))
    drawn = numpy.zeros(len(sources), dtype=bool)
    order = _spread(split_keys)
    for rows, weight in zip(given, weights, strict=True):
        count = round(unit * weight)
        drawn[rows[numpy.argsort(order[rows], kind="stable")[:count]]] = True
    return drawn


def _spread(split_keys: NDArray[numpy.uint64]) -> NDArray[numpy.uint64]:
    """Other numbers than the keys, which have decided already what is held out (splitmix64)."""
    uint64 = split_keys.dtype.type
    first, second, third = (uint64(one) for one in _ODD)
    mixed = split_keys + first
    mixed = (mixed ^ (mixed >> uint64(30))) * second
    mixed = (mixed ^ (mixed >> uint64(27))) * third
    return mixed ^ (mixed >> uint64(31))
