"""What a preference objective is judged by: rewards of the better answers against the worse ones."""

from __future__ import annotations

from pydantic import BaseModel, Field

from llm_engineering.objectives import OBJECTIVES


class Rewards(BaseModel):
    """Rewards on held-out rows.

    The reward of an answer is ``beta * (log p - log p of the reference model)`` for dpo and kto
    (arXiv 2305.18290, equation 5), and ``beta * log p / tokens`` for orpo, which has no reference.
    """

    objective: str
    margin: float = Field(
        description="Mean reward of the better answers minus that of the worse ones."
    )
    accuracy: float = Field(
        description="Share (0 to 1) of pairs whose better answer has the higher reward, or of single "
        "answers whose reward has the right sign; an equal reward counts half."
    )
    preferred: float | None = Field(
        description="Share (0 to 1) of pairs whose better answer is the likelier one per token, "
        "reference model or not; none for single answers."
    )
    log_probabilities: dict[str, list[float]] = Field(
        description="Of each whole answer, in nats, by answer; before training, the reference's."
    )

    @property
    def figures(self) -> dict[str, float]:
        """Margin and accuracy by the names that metrics.json has."""
        named = {
            "reward_margin": self.margin,
            "reward_accuracy": self.accuracy,
            "preferred_share": self.preferred,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def unit(self) -> str:
        """What the held-out loss is counted by."""
        return OBJECTIVES[self.objective].unit
