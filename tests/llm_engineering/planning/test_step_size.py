"""What goes into a step, and what is warned of."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.tokens.audit import LabelAudit
from llm_engineering.planning.step_size import step_size, step_warnings


def audit(rows: int, tokens: int) -> LabelAudit:
    values: dict[str, Any] = {
        "rows": rows, "tokens": tokens, "trained_tokens": tokens, "longest_row": 1, "length_bin": 1,
        "rows_by_length": [], "truncated_rows": 0, "stop_tokens": rows, "example_origin": "",
        "example": [],
    }  # fmt: skip
    return LabelAudit.model_validate(values)


def test_a_step_of_plain_rows() -> None:
    size = step_size(TrainSettings(effective_batch=16, epochs=3), audit(1000, 250_000), 2048)
    assert (size.documents, size.tokens, size.steps) == (16, 4000, 189)
    assert str(size) == "16 documents and 4,000 tokens a step, 189 steps"


def test_a_step_of_packed_rows_holds_many_documents() -> None:
    train = TrainSettings(effective_batch=16, epochs=3, packing=True)
    size = step_size(train, audit(8192, 2048 * 1000), 2048)
    assert size.documents == pytest.approx(16 * 8.192)
    assert size.tokens == 16 * 2048
    assert size.steps == 3 * 63
    assert str(size) == "about 131 documents and 32,768 tokens a step, about 189 steps"


def test_no_step_is_larger_than_the_data_and_max_steps_counts() -> None:
    size = step_size(TrainSettings(effective_batch=16, max_steps=7), audit(5, 100), 2048)
    assert (size.documents, size.tokens, size.steps) == (5, 100, 7)


@pytest.mark.parametrize(
    ("documents", "steps", "said"),
    [
        (64, 100, []),
        (16, 99, ["99 optimizer steps are few"]),
        (65, None, ["65 documents a step are many"]),
        (131.07, 63, ["63 optimizer steps are few", "131 documents a step are many"]),
    ],
)
def test_what_is_warned_of(documents: float, steps: int | None, said: list[str]) -> None:
    warnings = step_warnings(documents, steps)
    assert [w[: len(s)] for w, s in zip(warnings, said, strict=True)] == said
