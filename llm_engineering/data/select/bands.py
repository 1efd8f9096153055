"""An index of MinHash signatures by bands: which earlier ones may be near, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_engineering.data.rows.keys import spread

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

MOST_PERMUTATIONS = 128
FOUND_AT_THRESHOLD = 0.95
_SIGMAS = 4.0  # of the estimate, by which it may miss the threshold and yet be looked at
_PAIRS = 2**17  # compared at once
_ROW_BITS = 40  # of a pair's number; the others are the position's
_RUNS = 8  # sorted parts of a band before they are merged


class Banding(NamedTuple):
    """How a signature is cut: ``bands`` of ``rows`` MinHash values each."""

    bands: int
    rows: int

    @property
    def permutations(self) -> int:
        """MinHash values of a signature."""
        return self.bands * self.rows

    def found(self, similarity: float) -> float:
        """Probability that two rows of that similarity share a band: ``1 - (1 - s^r)^b``.

        Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4.2.
        """
        return float(1.0 - (1.0 - similarity**self.rows) ** self.bands)


def choose_banding(threshold: float) -> Banding:
    """The longest bands that still find 95 % of the pairs at the threshold, of 128 values at most.

    The longer a band, the fewer pairs far below the threshold share one; those that do are told
    apart afterwards. A pair 0.05 above the threshold is found with a probability of 0.98 at least.

    Args:
        threshold: Similarity (Jaccard), from 0.5 to 1.
    """
    return max(
        (
            banding
            for rows in range(1, MOST_PERMUTATIONS + 1)
            if (banding := Banding(MOST_PERMUTATIONS // rows, rows)).found(threshold)
            >= FOUND_AT_THRESHOLD
        ),
        key=lambda banding: banding.rows,
    )


class Signatures(NamedTuple):
    """MinHash signatures of rows, as far as they are compared."""

    values: NDArray[numpy.uint8]
    """The last eight bits of each value, shape ``(rows, bands * band_rows)``."""
    keys: NDArray[numpy.uint64]
    """A number for each band, which equal ones share; shape ``(rows, bands)``."""

    def part(self, rows: slice | NDArray[Any]) -> Signatures:
        """Those of some rows."""
        return Signatures(self.values[rows], self.keys[rows])


def to_signatures(values: NDArray[numpy.uint32], banding: Banding) -> Signatures:
    """Signatures from MinHash values, shape ``(rows, bands * band_rows)``."""
    import numpy

    # A sum of values times odd numbers: two different bands share one in some 10^19 pairs.
    factors = spread(numpy.arange(banding.rows, dtype="uint64"), 0) | numpy.uint64(1)
    bands = values.reshape(-1, banding.bands, banding.rows).astype("uint64")
    return Signatures(values.astype("uint8"), (bands * factors).sum(axis=2, dtype="uint64"))


class BandIndex:
    """Signatures by number, to be asked which of them share a band and are alike by estimate.

    Of a signature it keeps 12 bytes a band and one a value: 342 bytes at a threshold of 0.8.
    """

    def __init__(self, banding: Banding, threshold: float) -> None:
        """Begin an empty index.

        Args:
            banding: How signatures are cut.
            threshold: Similarity from which pairs are wanted.
        """
        import numpy

        self._banding = banding
        # Standard error of the estimate: Broder, "On the resemblance and containment of documents".
        error = math.sqrt(threshold * (1.0 - threshold) / banding.permutations)
        self._least = threshold - _SIGMAS * error
        self._rows = numpy.zeros(1024, dtype="int64")
        self._values = numpy.zeros((1024, banding.permutations), dtype="uint8")
        self._count = 0
        self._runs: list[list[tuple[NDArray[numpy.uint64], NDArray[numpy.uint32]]]] = [
            [] for _ in range(banding.bands)
        ]

    def add(self, rows: NDArray[numpy.intp], signatures: Signatures) -> None:
        """Append signatures, which are of the rows with these numbers."""
        import numpy

        if not len(rows):
            return
        end = self._count + len(rows)
        if end > len(self._rows):
            room = max(end, len(self._rows) * 3 // 2) - len(self._rows)
            self._rows = numpy.concatenate([self._rows, numpy.zeros(room, dtype="int64")])
            more = numpy.zeros((room, self._banding.permutations), dtype="uint8")
            self._values = numpy.concatenate([self._values, more])
        self._rows[self._count : end] = rows
        self._values[self._count : end] = signatures.values
        places = numpy.arange(self._count, end, dtype="uint32")
        self._count = end
        for runs, keys in zip(self._runs, signatures.keys.T, strict=True):
            order = keys.argsort()
            runs.append((keys[order], places[order]))
            _merge(runs)

    def near(self, signatures: Signatures) -> tuple[NDArray[numpy.intp], NDArray[numpy.intp]]:
        """Pairs that may reach the threshold, for exact comparison.

        Args:
            signatures: Of the rows that are asked for.

        Returns:
            Positions among the signatures, and numbers of the rows that they may be near; both
            ascend, and no pair comes twice.
        """
        import numpy

        pairs = [numpy.zeros(0, dtype="int64")]
        for runs, keys in zip(self._runs, signatures.keys.T, strict=True):
            for known, places in runs:
                low = known.searchsorted(keys)
                (hits,) = (known[low.clip(max=len(known) - 1)] == keys).nonzero()
                if not len(hits):
                    continue
                high = known.searchsorted(keys[hits], side="right")
                for hit, at in _expanded(low[hits], high):
                    positions = hits[hit]
                    same = self._values[places[at]] == signatures.values[positions]
                    alike = same.mean(axis=1) >= self._least
                    pairs.append(positions[alike] << _ROW_BITS | self._rows[places[at[alike]]])
        pair = numpy.unique(numpy.concatenate(pairs))
        return pair >> _ROW_BITS, pair & (1 << _ROW_BITS) - 1


def _merge(runs: list[tuple[NDArray[numpy.uint64], NDArray[numpy.uint32]]]) -> None:
    """Merge the last parts while they are many or as long as those before: few are searched."""
    import numpy

    while len(runs) > 1 and (len(runs) > _RUNS or len(runs[-2][0]) <= 2 * len(runs[-1][0])):
        (first, first_places), (second, second_places) = runs[-2:]
        keys = numpy.concatenate([first, second])
        order = keys.argsort(kind="stable")
        runs[-2:] = [(keys[order], numpy.concatenate([first_places, second_places])[order])]


def _expanded(
    low: NDArray[numpy.intp], high: NDArray[numpy.intp]
) -> Iterator[tuple[NDArray[numpy.intp], NDArray[numpy.intp]]]:
    """Each position, of one at least, with each index of its ``[low, high)``, so many at a time."""
    import numpy

    counts = high - low
    ends = counts.cumsum()
    total = int(ends[-1])
    for start in range(0, total, _PAIRS):
        pair = numpy.arange(start, min(start + _PAIRS, total))
        position = ends.searchsorted(pair, side="right")
        yield position, low[position] + pair - (ends - counts)[position]
