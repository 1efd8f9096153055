"""Rows in a held-out forward pass: as many as asked for, fewer of long ones, never none."""

from __future__ import annotations

import pytest

from llm_engineering.planning.held_out_batch import rows_in_a_pass
from llm_engineering.planning.memory import estimate_memory


@pytest.mark.parametrize(
    ("asked", "longest", "rows"), [(4, 2048, 4), (32, 2048, 16), (4, 20_000, 1), (4, 131_072, 1)]
)
def test_rows(asked, longest, rows):
    assert rows_in_a_pass(asked, longest) == rows


def test_long_rows_are_not_planned_with_all_their_logits(work):
    estimate = estimate_memory(work(row=131_072), 1, "tiled")
    logits = 2 * 131_072 * work().shape.vocabulary
    assert estimate.evaluation < 0.45 * logits
    short = estimate_memory(work(row=512, batch_size=4), 1, "tiled")
    assert short.evaluation > 2 * 4 * 512 * work().shape.vocabulary, "all of them, being few"
