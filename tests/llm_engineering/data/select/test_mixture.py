"""Drawing by weight: the shares hold, nothing is repeated, and the draw stays the same."""

from __future__ import annotations

import numpy
import pytest

from llm_engineering.data.select.mixture import draw

ORDER = numpy.random.default_rng(0).integers(0, 2**64, 1100, dtype="uint64")
SOURCES = numpy.array([0] * 1000 + [1] * 100, dtype="uint16")


@pytest.mark.parametrize(
    ("weights", "counts"),
    [
        ((1.0, 1.0), (100, 100)),
        ((3.0, 1.0), (300, 100)),
        ((0.3, 0.1), (300, 100)),
        ((20.0, 1.0), (1000, 50)),
        ((10.0, 1.0), (1000, 100)),
    ],
)
def test_the_scarcest_source_gives_all_and_the_others_their_share(
    weights: tuple[float, float], counts: tuple[int, int]
) -> None:
    drawn = draw(SOURCES, ORDER, weights)

    assert tuple(numpy.bincount(SOURCES[drawn])) == counts


def test_a_source_that_grows_keeps_the_rows_that_were_drawn() -> None:
    few = draw(SOURCES[:1050], ORDER[:1050], (1.0, 1.0))
    more = draw(SOURCES, ORDER, (1.0, 1.0))

    assert few.sum() == 100
    assert not (few & ~more[:1050]).any()


def test_a_source_without_a_row_leaves_the_others_their_shares() -> None:
    drawn = draw(SOURCES, ORDER, (1.0, 1.0, 5.0))

    assert tuple(numpy.bincount(SOURCES[drawn])) == (100, 100)
