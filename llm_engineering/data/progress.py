"""The progress bar over rows."""

from __future__ import annotations

from typing import Any


def row_bar(what: str, total: int | None = None) -> Any:
    """A progress bar in a terminal, after two seconds.

    Args:
        what: What is done to the rows.
        total: How many there are, where that is known.
    """
    from tqdm import tqdm

    return tqdm(desc=what, total=total, unit=" rows", delay=2, disable=None, leave=False)
