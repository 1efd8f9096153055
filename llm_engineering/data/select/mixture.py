"""Drawing rows from several sources by their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


def draw(
    sources: NDArray[numpy.uint16], order: NDArray[numpy.uint64], weights: Sequence[float]
) -> NDArray[numpy.bool]:
    """Which rows are drawn, so that each source has its share and none is repeated.

    The largest mixture: the source that is scarcest for its weight gives all of its rows. A source
    without a row has no share, which ``refusals.report_unused_sources`` tells.

    Args:
        sources: Number of each row's source, shape ``(rows,)``.
        order: The smallest of a source are drawn, the same shape; as of ``keys.spread``.
        weights: One for each source, above 0.

    Returns:
        A mask of the rows.
    """
    import numpy

    given = [numpy.flatnonzero(sources == number) for number in range(len(weights))]
    full = [len(rows) / weight for rows, weight in zip(given, weights, strict=True) if len(rows)]
    unit = min(full, default=0.0)
    drawn = numpy.zeros(len(sources), dtype=bool)
    for rows, weight in zip(given, weights, strict=True):
        count = round(unit * weight)
        drawn[rows[numpy.argsort(order[rows], kind="stable")[:count]]] = True
    return drawn
