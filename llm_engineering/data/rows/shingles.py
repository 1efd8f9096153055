"""Shingles: every five characters of a text, by which texts that are alike are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llm_engineering.data.rows.keys import spread

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Shingles = NDArray[numpy.uint64]
    """Hashes of a row's shingles, ascending, each once."""

_LENGTH = 5  # characters
# Odd numbers of 64 bits (fractional parts of square roots): of the sum of code points times them,
# two different shingles share one in some 10^19 pairs.
_FACTORS = (
    *(0x6A09E667F3BCC909, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B),
    *(0xA54FF53A5F1D36F1, 0x510E527FADE682D1),
)


class Piece(NamedTuple):
    """A text, and a number that keeps its shingles apart from those of other kinds of text."""

    text: str
    kind: int = 0


class Shingled(NamedTuple):
    """Shingles of many rows, by their hashes.

    ``hashes`` has shape ``(shingles,)``, those of a row behind one another and some of them more
    than once; those of row ``i`` begin at ``offsets[i]``; ``offsets`` has shape ``(rows + 1,)``.
    """

    hashes: NDArray[numpy.uint64]
    offsets: NDArray[numpy.uint64]


def shingle(rows: Sequence[Sequence[Piece]]) -> Shingled:
    """The shingles of each row's texts; a text of less than five characters is one itself."""
    import numpy

    texts = [piece.text.ljust(_LENGTH, "\0") for row in rows for piece in row]
    kinds = numpy.array([piece.kind for row in rows for piece in row], dtype="uint64")
    lengths = numpy.array(list(map(len, texts)), dtype=int)
    ends = lengths.cumsum()
    codes = numpy.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    inside = numpy.ones(len(codes), dtype=bool)
    for rest in range(1, _LENGTH):  # there, a shingle would go on in the next text
        inside[ends - rest] = False
    (starts,) = inside.nonzero()
    hashes = numpy.zeros(len(starts), dtype="uint64")
    for position, factor in enumerate(_FACTORS):
        hashes += codes[starts + position] * numpy.uint64(factor)
    counts = lengths - (_LENGTH - 1)
    hashes = spread(hashes ^ kinds.repeat(counts), 0)
    of_row = numpy.array([len(row) for row in rows], dtype=int)
    before = numpy.concatenate([[0], counts.cumsum()])
    offsets = before[numpy.concatenate([[0], of_row.cumsum()])]
    return Shingled(hashes, offsets.astype("uint64"))


def shingle_set(row: Sequence[Piece]) -> Shingles:
    """The shingles of one row."""
    import numpy

    return numpy.unique(shingle([row]).hashes)


def similarity(one: Shingles, other: Shingles) -> float:
    """Jaccard's similarity of two rows' shingles: shared ones among all, from 0 to 1."""
    import numpy

    shared = len(numpy.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
