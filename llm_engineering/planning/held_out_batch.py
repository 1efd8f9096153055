"""A held-out evaluation's forward passes: how many rows go into one, and when its logits are too many."""

from __future__ import annotations

MOST_TOKENS = 32768
"""In a forward pass, where several rows are in it."""

_MOST_LOGITS = 2**29  # a GiB in 16 bit

PIECE_BYTES = 2 * 4096 * 32768
"""What trl's fused head makes at once instead: of 4,096 tokens and 32,768 of the vocabulary."""


def rows_in_a_pass(batch_size: int, longest_row: float) -> int:
    """Rows that go into one forward pass, at least one.

    Args:
        batch_size: ``evaluate.batch_size``, the most.
        longest_row: Tokens of the longest of them.
    """
    return max(1, min(batch_size, int(MOST_TOKENS // max(longest_row, 1))))


def is_by_pieces(tokens: float, vocabulary: int) -> bool:
    """Whether a GPU makes the logits of a forward pass by pieces, since all of them would be too many."""
    return tokens * vocabulary > _MOST_LOGITS
