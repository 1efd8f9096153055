"""Is a lower held-out loss, or a better score, more than noise? A paired bootstrap over the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, Field

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 1_000_000


class Improvement(BaseModel):
    """How much lower one loss is than another, as a share of the latter."""

    share: float = Field(description="0.1: lower by 10 %; negative: higher.")
    at_least: float = Field(description="Lower bound of that share, at the confidence asked for.")


class Difference(BaseModel):
    """How much better the mean of one model's scores is than another's."""

    rows: int = Field(description="Rows that both have a score of.")
    to_beat: float = Field(description="Mean score of the model to beat, on these rows.")
    candidate: float = Field(description="That of the new model.")
    mean: float = Field(description="Their difference; negative: worse.")
    low: float = Field(description="Lower end of its two-sided interval.")
    high: float = Field(description="Upper end.")
    at_least: float = Field(description="Its one-sided lower bound, at the same confidence.")
    confidence: float


def paired_bootstrap(
    to_beat: Sequence[float], candidate: Sequence[float], *, confidence: float
) -> Improvement:
    """Compare two models' losses on the same rows.

    Rows are drawn with replacement, the same ones for both models, and the relative decrease of
    the summed loss is taken each time; its lower bound is the ``1 - confidence`` quantile (the
    percentile interval of Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13;
    for comparing models on one test set: Koehn, EMNLP 2004).

    Args:
        to_beat: Summed loss of each row, in nats, under the model to beat.
        candidate: The same under the new model, in the same order.
        confidence: One-sided, from 0.5 to 1.

    Raises:
        ValueError: The two do not have the same, positive number of rows.
    """
    import numpy as np

    old, new = _paired(to_beat, candidate)
    shares = [1.0 - new[rows].sum(1) / old[rows].sum(1) for rows in _resamples(len(old))]
    return Improvement(
        share=float(1.0 - new.sum() / old.sum()),
        at_least=float(np.quantile(np.concatenate(shares), 1.0 - confidence)),
    )


def paired_difference(
    to_beat: Sequence[float], candidate: Sequence[float], *, confidence: float
) -> Difference:
    """Compare two models' scores of the same rows, of which more is better.

    As ``paired_bootstrap``, of the difference of the means: scores may be zero, which has no share.

    Args:
        to_beat: Score of each row under the model to beat.
        candidate: The same under the new model, in the same order.
        confidence: Of the two-sided interval, and of the one-sided lower bound.

    Raises:
        ValueError: The two do not have the same, positive number of rows.
    """
    import numpy as np

    old, new = _paired(to_beat, candidate)
    gains = new - old
    means = np.concatenate([gains[rows].mean(1) for rows in _resamples(len(gains))])
    outside = 1.0 - confidence
    low, at_least, high = np.quantile(means, [outside / 2, outside, 1.0 - outside / 2])
    return Difference(
        rows=len(gains),
        to_beat=float(old.mean()),
        candidate=float(new.mean()),
        mean=float(gains.mean()),
        low=float(low),
        high=float(high),
        at_least=float(at_least),
        confidence=confidence,
    )


def _paired(to_beat: Sequence[float], candidate: Sequence[float]) -> tuple[Any, Any]:
    import numpy as np

    if len(to_beat) != len(candidate) or not len(to_beat):
        raise ValueError(f"cannot pair {len(to_beat)} rows with {len(candidate)}")
    return np.asarray(to_beat, dtype=float), np.asarray(candidate, dtype=float)


def _resamples(rows: int) -> Iterator[Any]:
    """Indices of drawn rows, of the shape ``(some resamples, rows)``, ``RESAMPLES`` in all."""
    import numpy as np

    draw = np.random.default_rng(0)  # equal losses give equal bounds
    at_once = max(1, _DRAWS_AT_ONCE // rows)
    for start in range(0, RESAMPLES, at_once):
        yield draw.integers(rows, size=(min(at_once, RESAMPLES - start), rows))
