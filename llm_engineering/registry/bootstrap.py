"""Is a lower held-out loss more than noise? A paired bootstrap over the held-out rows."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

RESAMPLES = 10_000
_DRAWS_AT_ONCE = 1_000_000


class Improvement(BaseModel):
    """How much lower one loss is than another, as a share of the latter."""

    share: float = Field(description="0.1: lower by 10 %; negative: higher.")
    at_least: float = Field(description="Lower bound of that share, at the confidence asked for.")


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

    old, new = np.asarray(to_beat), np.asarray(candidate)
    if len(old) != len(new) or not len(old):
        raise ValueError(f"cannot pair {len(old)} rows with {len(new)}")
    draw = np.random.default_rng(0)  # equal losses give equal bounds
    at_once = max(1, _DRAWS_AT_ONCE // len(old))
    shares = []
    for start in range(0, RESAMPLES, at_once):
        rows = draw.integers(len(old), size=(min(at_once, RESAMPLES - start), len(old)))
        shares.append(1.0 - new[rows].sum(1) / old[rows].sum(1))
    return Improvement(
        share=float(1.0 - new.sum() / old.sum()),
        at_least=float(np.quantile(np.concatenate(shares), 1.0 - confidence)),
    )
