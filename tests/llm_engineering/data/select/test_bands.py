"""The index of signatures: what is found of what was added, however it was added."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy
import pytest

from llm_engineering.data.select import bands as bands_module
from llm_engineering.data.select.bands import BandIndex, Banding, choose_banding, to_signatures


@pytest.mark.parametrize("threshold", [0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_the_bands_find_what_is_promised(threshold: float) -> None:
    banding = choose_banding(threshold)

    assert banding.found(threshold) >= 0.95
    assert banding.found(min(1.0, threshold + 0.05)) >= 0.98
    assert 100 <= banding.permutations <= 128
    longer = Banding(128 // (banding.rows + 1), banding.rows + 1)
    assert longer.found(threshold) < 0.95


def test_the_longest_such_bands_are_taken() -> None:
    assert choose_banding(0.8) == Banding(bands=18, rows=7)
    assert choose_banding(1.0) == Banding(bands=1, rows=128)


def test_a_band_is_found_with_its_known_probability() -> None:
    assert Banding(20, 5).found(0.8) == pytest.approx(0.9996, abs=1e-4)  # MMDS, figure 3.8
    assert Banding(20, 5).found(0.5) == pytest.approx(0.470, abs=1e-3)
    assert Banding(20, 5).found(0.2) == pytest.approx(0.006, abs=1e-3)


@pytest.mark.parametrize(("part", "at_once"), [(1, 2**17), (7, 5), (100, 1), (5000, 2**17)])
def test_all_that_share_a_band_are_found(
    part: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands_module, "_PAIRS", at_once)
    banding = Banding(4, 2)
    random = numpy.random.default_rng(0)
    values = random.integers(0, 6, (600, 8), dtype="uint32")
    signatures = to_signatures(values, banding)
    index = BandIndex(banding, threshold=0.9)
    for start in range(0, 600, part):
        rows = numpy.arange(start, min(600, start + part))
        index.add(rows * 10, signatures.part(rows))

    positions, found = index.near(signatures.part(slice(0, 40)))

    bands = values.reshape(600, 4, 2)
    least = 0.9 - 4 * (0.9 * 0.1 / 8) ** 0.5  # 0.48: half of the values
    wanted = [
        (position, row * 10)
        for position in range(40)
        for row in range(600)
        if (bands[position] == bands[row]).all(axis=1).any()
        and (values[position] == values[row]).mean() >= least
    ]
    assert list(zip(positions.tolist(), found.tolist(), strict=True)) == wanted
    assert len(wanted) > 40


def test_an_empty_index_finds_nothing() -> None:
    banding = Banding(4, 2)
    positions, rows = BandIndex(banding, 0.5).near(
        to_signatures(numpy.ones((3, 8), dtype="uint32"), banding)
    )

    assert (len(positions), len(rows)) == (0, 0)


def random_index(rows: int, part: int) -> tuple[BandIndex, Any]:
    """An index of so many signatures, so many added at a time; row n has the number 3 n."""
    banding = choose_banding(0.8)
    values = numpy.random.default_rng(1).integers(
        0, 2**32, (rows, banding.permutations), dtype="uint32"
    )
    signatures = to_signatures(values, banding)
    index = BandIndex(banding, 0.8)
    for start in range(0, rows, part):
        some = numpy.arange(start, min(rows, start + part))
        index.add(some * 3, signatures.part(some))
    return index, signatures


@pytest.mark.parametrize("part", [128, 700, 1100, 4000])
def test_an_index_grows_with_its_rows_and_finds_each(part: int) -> None:
    index, signatures = random_index(4000, part)

    positions, found = index.near(signatures)

    assert positions.tolist() == list(range(4000))
    assert found.tolist() == [3 * row for row in range(4000)]
    for row in (0, 2000, 3999):
        positions, found = index.near(signatures.part(slice(row, row + 1)))
        assert (positions.tolist(), found.tolist()) == ([0], [3 * row])


@pytest.mark.parametrize("part", [128, 4000])
def test_a_signature_takes_the_memory_that_is_promised(part: int) -> None:
    """342 bytes a row at this threshold, and room for half as many rows more at most."""
    index, _ = random_index(4000, part)

    by_band = sum(keys.nbytes + at.nbytes for runs in index._runs for keys, at in runs)
    assert by_band == 4000 * 18 * 12
    assert index._values.nbytes == len(index._rows) * 18 * 7
    assert 4000 <= len(index._rows) <= 6000
    assert len(index._rows) > 4000 or part == 4000, "it need not grow anew for each part"


def test_few_sorted_parts_are_searched() -> None:
    banding = Banding(4, 2)
    values = numpy.random.default_rng(2).integers(0, 9, (300, 8), dtype="uint32")
    signatures = to_signatures(values, banding)
    index = BandIndex(banding, 0.5)
    for row in range(300):
        index.add(numpy.array([row]), signatures.part(slice(row, row + 1)))
        for runs in index._runs:
            lengths = [len(keys) for keys, _ in runs]
            assert sum(lengths) == row + 1
            assert all(before > 2 * after for before, after in pairwise(lengths)), lengths
