"""What of a row is read: every key is used, refused, or told as not read; none vanishes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import Final

from llm_engineering.data.rows.text import holds_nothing
from llm_engineering.data.rows.unusable import UnusableRowError

Unread = set[str]
"""Names of what a row holds and nothing uses: ``column meta``, ``messages[].name``."""

_NAMES = 100
_NOTHING_IN_CSV = ("[]", "{}", "null", "None")
_OTHERS = "other names"
_MEDIA = "images, sound and video are not supported: leave such rows out, or the key if text alone is meant"
_UNSUPPORTED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("image", "images", "audio", "audios", "video", "videos", "image_url", "input_audio"),
        _MEDIA,
    ),
    "function_calls": "calls as program text are not supported: give tool_calls, each with its "
    "name and arguments",
    "train_detail": "a loss on parts of a message is not supported: mark whole messages with train",
    "training_detail": "a loss on parts of a message is not supported: mark whole messages with "
    "training",
    "chat_template_kwargs": "a row's own arguments of the chat template are not supported: set "
    "model.chat_template_kwargs for all rows",
}
"""Keys of known meaning that would train something else if they were left out, by what to do."""


def note_unread(
    values: Mapping[str, object], used: Container[str], path: str, unread: Unread
) -> None:
    """Add to ``unread`` the keys that hold something and are not among the used.

    Args:
        values: An object of a row.
        used: Its keys that are read.
        path: Stands before a key, e.g. ``messages[].``.
        unread: Receives the names.

    Raises:
        UnusableRowError: A key means what is not supported.
    """
    for key, value in values.items():
        if key in used or holds_nothing(value):
            continue
        if key in _UNSUPPORTED:
            if value in _NOTHING_IN_CSV:
                continue
            raise UnusableRowError(f"has {path}{key}: {_UNSUPPORTED[key]}")
        unread.add(path + shown_name(key))


def shown_name(key: object) -> str:
    """A key as text that is safe to print."""
    name = str(key)
    return name if name.isprintable() and name else repr(name)


def count_unread(counts: Counter[str], names: Unread) -> None:
    """Count what a row holds and nothing uses; of names without end the first are told apart."""
    for name in names:
        counts[name if name in counts or len(counts) < _NAMES else _OTHERS] += 1


class Columns:
    """The columns of a row, and which of them were asked for."""

    __slots__ = ("_used", "unread", "values")

    def __init__(self, values: Mapping[str, object], unread: Unread) -> None:
        self.values = values
        self.unread = unread
        self._used: set[str] = set()

    def get(self, name: str) -> object:
        """A column's value, which is read by that; None where there is none."""
        self._used.add(name)
        return self.values.get(name)

    def has(self, name: str) -> bool:
        """Whether the column is there and says something."""
        return not holds_nothing(self.values.get(name))

    def first(self, names: Iterable[str]) -> str | None:
        """The first of these columns that says something."""
        for name in names:
            if name in self.values and self.has(name):
                return name
        return None

    def finish(self, path: str = "column ") -> None:
        """Tell of the columns that nothing asked for; ``path`` stands before their names.

        Raises:
            UnusableRowError: One means what is not supported.
        """
        note_unread(self.values, self._used, path, self.unread)
