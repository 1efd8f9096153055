"""The section ``evaluate``: what is measured beside the training loss."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.configuration.section import NonNegativeInt, PositiveInt, Section


class EvaluateSettings(Section):
    """What is measured beside the training loss."""

    batch_size: PositiveInt = Field(
        4,
        description="Rows in one evaluation forward pass at most; fewer where they have more than 32,768 "
        "tokens together.",
    )
    samples: NonNegativeInt = Field(4, description="Held-out prompts answered before and after.")
    samples_every: PositiveInt | None = Field(
        None,
        description="Optimizer steps between answers to these prompts while training; default: "
        "none.",
    )
    max_new_tokens: PositiveInt = Field(64, description="Longest sample answer, in tokens.")
    generic_passages: Annotated[int, Field(ge=0, le=60)] = Field(
        60,
        description="Passages of general text on which forgetting is measured, of the 60 that ship "
        "with the project; 0: it is not measured.",
    )
    parity_rows: NonNegativeInt = Field(
        4,
        description="Held-out rows on which every export, read back in a process of its own, must "
        "say what the trained model said; 0: no proof.",
    )
    answers: AnswersSettings | None = Field(
        None,
        description="Held-out rows that base model and adapter answer, and how the answers are "
        "scored; default: none are.",
    )
    benchmarks: list[Annotated[str, Field(min_length=1)]] = Field(
        [],
        description="Tasks of EleutherAI's lm-evaluation-harness, evaluated before and after: names, or "
        "paths of tasks' YAML files, which can read local data.",
    )
    benchmark_limit: PositiveInt | None = Field(
        None, description="The first so many rows of each benchmark; default: all."
    )

    @property
    def needing_the_model(self) -> dict[str, Any]:
        """What is measured where the model is: all but how answers are scored, which needs none."""
        return self.model_dump(mode="json", exclude={"answers": {"scorers", "judge"}})

    @property
    def scored_tool_calls(self) -> int:
        """Held-out rows whose tool calls are scored; 0 where none are."""
        answers = self.answers
        if answers is None or all(one.scorer != "tool_call" for one in answers.scorers):
            return 0
        return answers.rows
