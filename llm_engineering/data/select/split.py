"""Which rows are held out: decided by each row's own text, or by a column that rows share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_engineering.data.rows.conversations import Message
from llm_engineering.data.rows.forms import UnusableRowError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 2**20  # rows


def place_of(conversation: Sequence[Message], seed: int) -> int:
    """A number of 64 bits, evenly spread, that the text and the seed decide."""
    return _digest([seed, conversation])


def place_of_group(values: dict[str, Any], column: str, seed: int) -> int:
    """The same for all rows that share the value of a column.

    Raises:
        UnusableRowError: The row has no such value, or it is a list or an object.
    """
    value = values.get(column)
    if value is None or isinstance(value, list | dict):
        kind = "no value" if value is None else f"a {type(value).__name__}"
        raise UnusableRowError(f"has {kind} in column {column}, which data.held_out.group names")
    return _digest([seed, "group", str(value)])


def is_held_out(places: NDArray[Any], fraction: float) -> NDArray[Any]:
    """Which of the rows at these places are held out: about ``fraction`` of them, at least one.

    Data that grows never moves a trained row among them, and rows at one place stay together.

    Args:
        places: As ``place_of`` gives them, uint64, shape ``(rows,)``.
        fraction: From 0 to 1.
    """
    held: NDArray[Any] = places.astype(bool)
    limit = max(fraction, int(places.min()) / 2**64) if len(places) else fraction
    for start in range(0, len(places), _CHUNK):  # few of the quotients are in memory
        part = slice(start, start + _CHUNK)
        held[part] = places[part].astype("float64") / 2**64 <= limit
    return held


def _digest(value: list[Any]) -> int:
    text = json.dumps(value, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
