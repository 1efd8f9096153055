"""Tokens read in training, counted where a batch is put together: on the CPU, before any device.

transformers' own count asks the device for a number after every forward pass, and so waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


class TokenCount:
    """Counts what a collator is given, and tells it when the batch has been trained.

    Batches are put together ahead of their turn, and in its order.

    Args:
        tokens_read: Tokens of a row, padding excluded.
    """

    def __init__(self, tokens_read: Callable[[Row], int]) -> None:
        self._tokens_read = tokens_read
        self._waiting: deque[int] = deque()
        self.trained = 0
        """Tokens of the batches that this process has trained."""

    def collating(self, collator: Callable[[Sequence[Row]], Any]) -> Callable[[Sequence[Row]], Any]:
        """A collator that also counts."""

        def collate(rows: Sequence[Row]) -> Any:
            self._waiting.append(sum(map(self._tokens_read, rows)))
            return collator(rows)

        return collate

    def forget_waiting(self) -> None:
        """A new pass over the data begins: what was put together ahead of it is not trained."""
        self._waiting.clear()

    def batch_is_trained(self) -> None:
        """The next batch in turn has been trained."""
        self.trained += self._waiting.popleft()
