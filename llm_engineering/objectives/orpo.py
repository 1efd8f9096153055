"""ORPO: which of two answers is better, and the better one itself; no reference (arXiv 2403.07691)."""

from __future__ import annotations

from typing import ClassVar

from llm_engineering.objectives.objective import LearnsFrom, Objective


class Orpo(Objective):
    """Likelihood of the better answer and an odds ratio; the default rate is its paper's (section 5)."""

    name: ClassVar[str] = "orpo"
    learning_rate: ClassVar[float] = 8e-6
    learns_from: ClassVar[LearnsFrom] = "pairs"
    sequences_per_row: ClassVar[int] = 2
    has_reference_model: ClassVar[bool] = False
    unit: ClassVar[str] = "per pair"
