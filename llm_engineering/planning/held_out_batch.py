"""A held-out evaluation's forward passes: how many rows go into one, and when its logits are too many."""

from __future__ import annotations

_MOST_TOKENS = 32768  # as many as training puts into a forward pass at most (batch_plan.py)

LOGIT_BYTES = 2**30
"""Logits in 16 bit, of a forward pass; on a GPU more are not made at once."""

PIECE_BYTES = 2 * 4096 * 32768
"""What trl's fused head makes at once instead: of 4,096 tokens and 32,768 of the vocabulary."""


def rows_in_a_pass(batch_size: int, longest_row: float) -> int:
    """Rows that go into one forward pass, at least one.

    Args:
        batch_size: ``evaluate.batch_size``, the most.
        longest_row: Tokens of the longest of them.
    """
    return max(1, min(batch_size, int(_MOST_TOKENS // max(longest_row, 1))))
