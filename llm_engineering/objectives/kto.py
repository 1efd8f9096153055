"""KTO: whether an answer is good, measured against a reference model (arXiv 2402.01306)."""

from __future__ import annotations

from typing import ClassVar

from llm_engineering.objectives.objective import LearnsFrom, Objective


class Kto(Objective):
    """``1 - sigmoid`` of a signed reward; the default rate is the upper end of its paper's range."""

    name: ClassVar[str] = "kto"
    learning_rate: ClassVar[float] = 5e-6
    learns_from: ClassVar[LearnsFrom] = "judged answers"
    # Its reference point is estimated from the other rows of a micro-batch (section 4.1).
    least_micro_batch: ClassVar[int] = 2
    unit: ClassVar[str] = "per answer"
