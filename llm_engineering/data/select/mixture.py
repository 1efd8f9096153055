"""Drawing rows from several sources by their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64's


def draw(sources: NDArray[Any], places: NDArray[Any], weights: Sequence[float]) -> NDArray[Any]:
    """Which rows are drawn, so that each source has its share and none is repeated.

    The largest mixture: the source that is scarcest for its weight gives all of its rows. A row's
    place decides, so that the same rows are drawn again.

    Args:
        sources: Number of each row's source, shape ``(rows,)``.
        places: What decides, uint64, the same shape; as of ``split.place_of``.
        weights: One for each source, above 0.

    Returns:
        A mask of the rows.
    """
    import numpy

    given = [numpy.flatnonzero(sources == number) for number in range(len(weights))]
    unit = min(len(rows) / weight for rows, weight in zip(given, weights, strict=True))
    drawn = numpy.zeros(len(sources), dtype=bool)
    order = _spread(places)
    for rows, weight in zip(given, weights, strict=True):
        count = round(unit * weight)
        drawn[rows[numpy.argsort(order[rows], kind="stable")[:count]]] = True
    return drawn


def _spread(places: NDArray[Any]) -> NDArray[Any]:
    """Other numbers than the places, which have decided already what is held out (splitmix64)."""
    first, second, third = (places.dtype.type(one) for one in _ODD)
    mixed = places + first
    mixed = (mixed ^ (mixed >> places.dtype.type(30))) * second
    mixed = (mixed ^ (mixed >> places.dtype.type(27))) * third
    spread: NDArray[Any] = mixed ^ (mixed >> places.dtype.type(31))
    return spread
