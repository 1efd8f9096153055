"""Supervised fine-tuning: the answers are learned, token by token."""

from __future__ import annotations

from typing import ClassVar

from llm_engineering.objectives.objective import LearnsFrom, Objective


class Sft(Objective):
    """Mean negative log-likelihood of the labelled tokens; the default rate is the handbook's."""

    name: ClassVar[str] = "sft"
    learning_rate: ClassVar[float] = 3e-4
    learns_from: ClassVar[LearnsFrom] = "conversations"
    makes_all_logits: ClassVar[bool] = False
    has_reference_model: ClassVar[bool] = False
    unit: ClassVar[str] = "nats per token"
