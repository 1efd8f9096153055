"""Tests of ``llm_engineering.scoring.bootstrap``."""

from __future__ import annotations

import random

import numpy
import pytest

from llm_engineering.scoring import bootstrap
from llm_engineering.scoring.bootstrap import RESAMPLES, paired_bootstrap, paired_difference


def test_the_share_is_that_of_the_summed_losses() -> None:
    found = paired_bootstrap([10.0, 30.0], [9.0, 27.0], confidence=0.95)

    assert found.share == pytest.approx(0.1)
    assert found.at_least == pytest.approx(0.1)  # every row is better by the same tenth


def test_equal_losses_are_no_improvement() -> None:
    rows = [random.Random(0).uniform(1, 50) for _ in range(40)]

    found = paired_bootstrap(rows, rows, confidence=0.95)

    assert (found.share, found.at_least) == (0.0, 0.0)


def test_noise_of_the_size_of_the_gain_is_not_taken_for_one() -> None:
    draw = random.Random(1)
    old = [20.0] * 60
    noise = [draw.gauss(0, 2) for _ in range(30)]
    new = [19.9 + sign * value for value in noise for sign in (1, -1)]  # better by 0.5 % in sum

    found = paired_bootstrap(old, new, confidence=0.95)

    assert found.share == pytest.approx(0.005)
    assert found.at_least < 0


def test_pairing_finds_a_small_gain_among_rows_that_differ_a_lot() -> None:
    draw = random.Random(2)
    old = [draw.uniform(1, 100) for _ in range(60)]
    new = [loss * 0.98 for loss in old]

    assert paired_bootstrap(old, new, confidence=0.95).at_least == pytest.approx(0.02)


def test_the_bound_agrees_with_the_normal_approximation() -> None:
    draw = random.Random(3)
    old = [10.0] * 400
    new = [9.0 + draw.gauss(0, 1) for _ in old]
    mean = sum(new) / len(new)
    error = (sum((value - mean) ** 2 for value in new) / len(new) / len(new)) ** 0.5

    found = paired_bootstrap(old, new, confidence=0.95)

    assert found.at_least == pytest.approx(1 - (mean + 1.645 * error) / 10, abs=0.001)


def test_more_confidence_asks_for_more() -> None:
    draw = random.Random(4)
    old = [draw.uniform(5, 15) for _ in range(50)]
    new = [loss - draw.uniform(-1, 2) for loss in old]

    bounds = [paired_bootstrap(old, new, confidence=c).at_least for c in (0.5, 0.9, 0.99)]

    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[2]


def test_equal_losses_give_equal_bounds() -> None:
    """A gate that is asked again says the same."""
    draw = random.Random(5)
    old = [draw.uniform(5, 15) for _ in range(20)]
    new = [loss - draw.uniform(-1, 2) for loss in old]

    first, again = (paired_bootstrap(old, new, confidence=0.95) for _ in range(2))

    assert first == again


@pytest.mark.parametrize(("old", "new"), [([], []), ([1.0], [1.0, 2.0])])
def test_rows_that_do_not_pair(old: list[float], new: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot pair"):
        paired_bootstrap(old, new, confidence=0.95)


def test_the_difference_is_that_of_the_means() -> None:
    found = paired_difference([0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0], confidence=0.95)
    assert (found.to_beat, found.candidate, found.mean, found.rows) == (0.25, 0.75, 0.5, 4)
    assert found.low == 0.0
    assert found.high == 1.0
    assert found.low <= found.at_least <= found.mean


def test_a_difference_within_noise_has_zero_in_its_interval() -> None:
    draw = numpy.random.default_rng(1)
    old = draw.normal(0.5, 0.2, 200)
    noise = paired_difference(old, old + draw.normal(0.0, 0.2, 200), confidence=0.95)
    assert noise.low < 0 < noise.high
    gains = draw.normal(0.1, 0.2, 200)
    real = paired_difference(old, old + gains, confidence=0.95)
    half = 1.96 * gains.std() / 200**0.5  # of the normal interval of a mean, some 0.028
    assert real.low == pytest.approx(real.mean - half, abs=0.001)
    assert real.high == pytest.approx(real.mean + half, abs=0.001)
    assert real.at_least > 0


def test_scores_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot pair 1 rows with 2"):
        paired_difference([1.0], [1.0, 2.0], confidence=0.95)


def test_scores_may_be_truths() -> None:
    found = paired_difference([False, False], [True, True], confidence=0.95)
    assert (found.to_beat, found.candidate, found.low) == (0.0, 1.0, 1.0)
    assert paired_bootstrap([True, True], [False, False], confidence=0.95).share == 1.0


@pytest.mark.parametrize("rows", [3, 300])
def test_ten_thousand_resamples_are_drawn_in_parts_that_fit_memory(rows: int) -> None:
    parts = [drawn.shape for drawn in bootstrap._resamples(rows)]
    assert sum(count for count, _ in parts) == RESAMPLES
    assert {width for _, width in parts} == {rows}
    assert max(count * rows for count, _ in parts) <= 1_000_000


def test_of_very_many_rows_one_resample_is_drawn_at_a_time() -> None:
    assert next(bootstrap._resamples(1_200_000)).shape == (1, 1_200_000)
