"""The progress bar over rows."""

from __future__ import annotations

from typing import Protocol


class RowBar(Protocol):
    """A progress bar; ``tqdm``'s."""

    def update(self, n: int = 1, /) -> object:
        """So many rows more are done."""

    def close(self) -> None:
        """No more follow."""


def row_bar(what: str, total: int | None = None) -> RowBar:
    """A progress bar in a terminal, after two seconds.

    Args:
        what: What is done to the rows.
        total: How many there are, where that is known.
    """
    from tqdm import tqdm

    bar: RowBar = tqdm(desc=what, total=total, unit=" rows", delay=2, disable=None, leave=False)
    return bar
