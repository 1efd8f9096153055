"""The index of signatures: what is found of what was added, however it was added."""

from __future__ import annotations

import numpy
import pytest

from llm_engineering.data.select.bands import BandIndex, Banding, choose_banding, to_signatures


@pytest.mark.parametrize("threshold", [0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_the_bands_find_what_is_promised(threshold: float) -> None:
    banding = choose_banding(threshold)

    assert banding.found(threshold) >= 0.95
    assert banding.found(min(1.0, threshold + 0.05)) >= 0.98
    assert 100 <= banding.permutations <= 128
    longer = Banding(128 // (banding.rows + 1), banding.rows + 1)
    assert longer.found(threshold) < 0.95


def test_a_band_is_found_with_its_known_probability() -> None:
    assert Banding(20, 5).found(0.8) == pytest.approx(0.9996, abs=1e-4)  # MMDS, figure 3.8
    assert Banding(20, 5).found(0.5) == pytest.approx(0.470, abs=1e-3)
    assert Banding(20, 5).found(0.2) == pytest.approx(0.006, abs=1e-3)


@pytest.mark.parametrize("part", [1, 7, 100, 5000])
def test_all_that_share_a_band_are_found(part: int) -> None:
    banding = Banding(4, 2)
    random = numpy.random.default_rng(0)
    values = random.integers(0, 6, (600, 8), dtype="uint32")
    signatures = to_signatures(values, banding)
    index = BandIndex(banding, threshold=0.5)
    for start in range(0, 600, part):
        rows = numpy.arange(start, min(600, start + part))
        index.add(rows * 10, signatures.part(rows))

    positions, found = index.near(signatures.part(slice(0, 40)))

    bands = values.reshape(600, 4, 2)
    least = 0.5 - 4 * (0.25 / 8) ** 0.5
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
