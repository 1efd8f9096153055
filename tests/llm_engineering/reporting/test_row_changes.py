"""Which held-out rows gained most and least."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.reporting.row_changes import row_changes

BEFORE, AFTER = [6.0, 8.0, 4.0, 9.0], [3.0, 8.0, 8.0, 3.0]
TOKENS = [3, 2, 4, 1]  # changes a token: -1, 0, +1, -6


def dataset(rows: int = 4) -> Any:
    held_out = [
        {
            "origin": f"rows.jsonl:{number}",
            "answer": 1,
            "conversation": json.dumps(
                {
                    "messages": [
                        {"role": "user", "content": f"Q{number}"},
                        {"role": "assistant", "content": "A" * 1000},
                    ]
                }
            ),
        }
        for number in range(rows)
    ]
    return SimpleNamespace(split={"held_out": held_out}.__getitem__, folder=Path())


def evaluation(before: list[float], after: list[float]) -> Evaluation:
    def metrics(losses: list[float]) -> HeldOutMetrics:
        return HeldOutMetrics(
            loss=1.0, token_accuracy=0.5, tokens=10, rows=4, row_losses=losses, row_tokens=TOKENS
        )

    return Evaluation(before=metrics(before), after=metrics(after), samples=[])


def test_rows_are_ordered_by_the_change_of_the_loss_of_a_token() -> None:
    found = row_changes(dataset(), evaluation(BEFORE, AFTER))
    assert found is not None
    assert [row.origin[-1] for row in found.best] == ["3", "0"]
    assert [row.origin[-1] for row in found.worst] == ["2", "1"]
    assert (found.best[0].before, found.best[0].after) == (9.0, 3.0)
    assert (found.risen, found.rows) == (1, 4)
    assert found.best[0].prompt == "Q3"
    assert len(found.best[0].answer) < 700


@pytest.mark.parametrize(
    ("before", "after", "rows"), [([], [], 4), (BEFORE, [], 4), (BEFORE, AFTER, 3)]
)
def test_without_the_rows_own_losses_there_are_none(
    before: list[float], after: list[float], rows: int
) -> None:
    assert row_changes(dataset(rows), evaluation(before, after)) is None
