"""A row that cannot be trained on: an error where it is read, a value among rows that can be used."""

from __future__ import annotations

from dataclasses import dataclass


class UnusableRowError(ValueError):
    """A row that cannot be trained on; the message is the reason."""


@dataclass(frozen=True, slots=True)
class UnusableRow:
    """Stands in a batch for a row that cannot be trained on, and says why."""

    reason: str
