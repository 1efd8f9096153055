"""DPO: which of two answers is better, measured against a reference model (arXiv 2305.18290)."""

from __future__ import annotations

from typing import ClassVar

from llm_engineering.objectives.objective import LearnsFrom, Objective


class Dpo(Objective):
    """``-log sigmoid`` of the margin of two rewards; the default rate is the handbook's."""

    name: ClassVar[str] = "dpo"
    learning_rate: ClassVar[float] = 2e-6
    learns_from: ClassVar[LearnsFrom] = "pairs"
    sequences_per_row: ClassVar[int] = 2
    unit: ClassVar[str] = "per pair"
