"""ORPO: which of two answers is better, and the better one itself; no reference (arXiv 2403.07691)."""

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

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer

_LEAST = -1e-9  # nearest to zero that the logarithm of a probability is taken to be


class Orpo(Objective):
    """Likelihood of the better answer and an odds ratio; the default rate is its paper's (section 5).

    trl's own trainer makes the logits of all tokens at once, and its likelihood is that of the prompt
    too; so the batches and the fused head of its DPO trainer are used.
    """

    name: ClassVar[str] = "orpo"
    title: ClassVar[str] = "which of two answers is better, by ORPO"
    learning_rate: ClassVar[float] = 8e-6
    learns_from: ClassVar[LearnsFrom] = "pairs"
    sequences_per_row: ClassVar[int] = 2
    makes_all_logits: ClassVar[bool] = False  # trl's fused head goes through them in tiles
    has_reference_model: ClassVar[bool] = False
    definition: ClassVar[int] = 2
    unit: ClassVar[str] = "per pair"

    def make_trainer(self, ingredients: Ingredients) -> Trainer:
        """trl's, on rows that are tokens already."""
        return pair_trainer(self, ingredients)

    def judge(self, answers: Answers, beta: float) -> Judgement:
        """The chosen answer's mean negative log-likelihood, and ``beta`` times the odds-ratio loss.

        That is the paper's equation 6. A reward is ``beta`` times the mean log-probability of a
        token.
        """
        from torch.nn.functional import logsigmoid

        means = {
            name: values / answers.tokens[name].clamp(min=1)
            for name, values in answers.log_probabilities.items()
        }
        log_odds_ratio = _log_odds(means["chosen"]) - _log_odds(means["rejected"])
        rewards = {name: beta * one for name, one in means.items()}
        return Judgement(-means["chosen"] - beta * logsigmoid(log_odds_ratio), rewards)


def _log_odds(log_probability: Tensor) -> Tensor:
    """``log(p / (1 - p))`` of a probability given by its logarithm, which is below zero."""
    log_probability = log_probability.clamp(max=_LEAST)
    return log_probability - (-log_probability.expm1()).log()
