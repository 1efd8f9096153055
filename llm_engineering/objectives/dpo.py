"""DPO: which of two answers is better, measured against a reference model (arXiv 2305.18290)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llm_engineering.objectives.objective import (
    Answers,
    Ingredients,
    Judgement,
    LearnsFrom,
    Objective,
)
from llm_engineering.objectives.preference_trainer import pair_trainer
from llm_engineering.objectives.reference_model import rewards_against_reference

if TYPE_CHECKING:
    from transformers import Trainer


class Dpo(Objective):
    """``-log sigmoid`` of the margin of two rewards; the default rate is the handbook's."""

    name: ClassVar[str] = "dpo"
    title: ClassVar[str] = "which of two answers is better, by DPO"
    learning_rate: ClassVar[float] = 2e-6
    learns_from: ClassVar[LearnsFrom] = "pairs"
    sequences_per_row: ClassVar[int] = 2
    makes_all_logits: ClassVar[bool] = False  # trl's fused head goes through them in tiles
    unit: ClassVar[str] = "per pair"

    def make_trainer(self, ingredients: Ingredients) -> Trainer:
        """trl's, on rows that are tokens already."""
        return pair_trainer(self, ingredients)

    def judge(self, answers: Answers, beta: float) -> Judgement:
        """A pair's loss is ``-log sigmoid(margin)`` of its rewards (equation 7)."""
        from torch.nn.functional import logsigmoid

        rewards = rewards_against_reference(answers, beta)
        return Judgement(-logsigmoid(rewards["chosen"] - rewards["rejected"]), rewards)
