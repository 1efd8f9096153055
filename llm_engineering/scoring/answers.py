"""Generated answers to held-out rows and their scores: what an evaluation keeps of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from llm_engineering.scoring.bootstrap import Difference, paired_difference

SHOWN_ROWS = 10
"""Rows that a report lists of those that gained most, and of those that lost most."""

CONFIDENCE = 0.95
"""Of the interval that reports show; the gate asks by registry.confidence."""

Call = dict[str, Any]
"""A tool's call: ``{"name": ..., "arguments": {...}}``."""


class Answer(BaseModel):
    """One model's answer."""

    text: str
    tokens: int = Field(description="Its length, the stop token excluded.")
    is_cut: bool = Field(description="Whether it reached the limit before its end.")
    tool_calls: list[Call] | None = Field(
        None, description="The calls that it makes; None: of a row without tools, it was not read."
    )


class AnsweredRow(BaseModel):
    """A held-out row with both answers."""

    origin: str = Field(description="file:line of the row.")
    key: str = Field(description="Digest of prompt and reference: the same row in another run.")
    prompt: str = Field(description="The last user message, or the beginning of a plain text.")
    reference: str = Field(description="The answer in the data.")
    reference_calls: list[Call] | None = Field(
        None, description="The calls in the data's answer; None: the row has no tools."
    )
    before: Answer = Field(description="The base model's.")
    after: Answer = Field(description="The trained adapter's.")


class Score(BaseModel):
    """One scorer's numbers, by row."""

    name: str
    settings: dict[str, Any] = Field(description="The scorer's, as configured.")
    before: list[float | None] = Field(description="Of the base model's answers; None: no score.")
    after: list[float | None] = Field(description="Of the adapter's.")
    difference: Difference | None = Field(None, description="None: no row has both scores.")
    note: str = Field("", description="What is to be known of it, such as rows without a score.")

    def compared(self) -> Score:
        """The same with its paired bootstrap, over the rows that have both scores."""
        if not (pairs := self.pairs()):
            return self
        _, before, after = zip(*pairs, strict=True)
        found = paired_difference(before, after, confidence=CONFIDENCE)
        return self.model_copy(update={"difference": found})

    def pairs(self) -> list[tuple[int, float, float]]:
        """Rows that have both scores, each with the base model's and the adapter's."""
        return [
            (row, before, after)
            for row, (before, after) in enumerate(zip(self.before, self.after, strict=True))
            if before is not None and after is not None
        ]

    def gains(self) -> list[tuple[int, float]]:
        """The same rows, each with what the adapter gained on it."""
        return [(row, after - before) for row, before, after in self.pairs()]

    def gained(self) -> list[tuple[int, float]]:
        """Rows that gained most, with how much, at most ``SHOWN_ROWS``; none that gained nothing."""
        found = sorted((one for one in self.gains() if one[1] > 0), key=lambda one: -one[1])
        return found[:SHOWN_ROWS]

    def lost(self) -> list[tuple[int, float]]:
        """Likewise the rows that lost most."""
        found = sorted((one for one in self.gains() if one[1] < 0), key=lambda one: one[1])
        return found[:SHOWN_ROWS]


class Answers(BaseModel):
    """Held-out rows, answered by base model and adapter, and scored."""

    generation: dict[str, Any] = Field(description="How they were made: evaluate.answers' keys.")
    rows: list[AnsweredRow]
    scores: list[Score] = []

    def made_like(self, other: Answers) -> bool:
        """Whether both were made by the same settings, the number of rows aside."""
        return self.generation | {"rows": 0} == other.generation | {"rows": 0}

    def score(self, name: str) -> Score | None:
        """The scores of that name."""
        return next((one for one in self.scores if one.name == name), None)

    @property
    def figures(self) -> dict[str, float]:
        """Mean scores and their difference, by the names that metrics.json uses."""
        figures: dict[str, float] = {}
        for score in self.scores:
            if (found := score.difference) is not None:
                figures |= {
                    f"score_{score.name}_before": found.to_beat,
                    f"score_{score.name}_after": found.candidate,
                    f"score_{score.name}_change": found.mean,
                    f"score_{score.name}_change_low": found.low,
                    f"score_{score.name}_change_high": found.high,
                }
        return figures


def row_key(conversation: Mapping[str, Any]) -> str:
    """By which a row is known again in another run: what was asked, and what is right.

    Args:
        conversation: The row's, up to its answer, as JSON stores it.
    """
    text = json.dumps(conversation, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
