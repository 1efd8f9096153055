"""The logistic functions of the preference losses, without overflow."""

from __future__ import annotations

import math


def log_sigmoid(x: float) -> float:
    """``log(1 / (1 + exp(-x)))``."""
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def log_odds(log_probability: float) -> float:
    """``log(p / (1 - p))`` of a probability given by its logarithm, which is below zero."""
    return log_probability - math.log(-math.expm1(min(log_probability, -1e-9)))
