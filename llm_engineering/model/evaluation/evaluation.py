"""The result of an evaluation: base model and trained adapter on the same held-out rows."""

from __future__ import annotations

from pydantic import BaseModel, Field

from llm_engineering.model.evaluation.benchmarks import Benchmark
from llm_engineering.model.evaluation.generic import GenericLoss
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.probe import TrainedProbe
from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.scoring.answers import Answers


class Evaluation(BaseModel):
    """The base model and the trained adapter on the same held-out rows."""

    before: HeldOutMetrics
    after: HeldOutMetrics
    samples: list[Sample]
    generic: GenericLoss | None = Field(None, description="On general text; None: not measured.")
    trained_probe: TrainedProbe | None = Field(
        None, description="What every export must say again; None: no proof was asked for."
    )

    answers: Answers | None = Field(
        None, description="Of the rows of evaluate.answers, and their scores; None: none were made."
    )

    benchmarks: list[Benchmark] = Field([], description="Those of evaluate.benchmarks.")

    @property
    def benchmark_figures(self) -> dict[str, float]:
        """Benchmarks by the names that metrics.json uses."""
        return {
            f"benchmark_{one.task}_{one.metric}_{when}": value
            for one in self.benchmarks
            for when, value in (("before", one.before), ("after", one.after))
        }

    @property
    def loss_change(self) -> float:
        """Relative change of the held-out loss: -0.2 is a loss lower by 20 %."""
        return self.after.loss / self.before.loss - 1.0

    @property
    def reward_figures(self) -> dict[str, float]:
        """Rewards before and after by name; empty unless the objective is about preferences."""
        return {
            f"{name}_{when}": value
            for when, metrics in (("before", self.before), ("after", self.after))
            if metrics.rewards is not None
            for name, value in metrics.rewards.figures.items()
        }
