"""A row as it was read, or the reason why it cannot be used, each with the place it came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row as read; ``origin`` is ``file:line`` (``file:row N`` where there are no lines)."""

    origin: str
    values: dict[str, object]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be trained on, and why."""

    origin: str
    reason: str


class BadRows:
    """Bad rows in their order: the first are kept, and all are counted."""

    def __init__(self, kept: int = 1000) -> None:
        self.rows: list[BadRow] = []
        self.count = 0
        self._kept = kept

    def add(self, row: BadRow) -> None:
        """Count a row, and keep it if it is among the first."""
        self.count += 1
        if len(self.rows) < self._kept:
            self.rows.append(row)


def object_row(origin: str, value: object) -> Row | BadRow:
    """A value of a file as a row; only an object with named columns is one."""
    if not isinstance(value, dict):
        kind = "null" if value is None else type(value).__name__
        return BadRow(origin, f"is {kind}, expected an object with named columns")
    return Row(origin, value)
