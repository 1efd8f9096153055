"""What a row is compared by: keys of 64 bits for what is equal, shingles for what is alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.unusable import UnusableRowError

_SHINGLE = 5  # characters


class RowKeys(NamedTuple):
    """Numbers of 64 bits by which a row is compared with others."""

    equal: int
    """Equal rows share it; rows that say the opposite differ in its last bit alone."""
    split: int
    """Rows that share it are held out together; evenly spread, as of ``split_key``."""
    leak: int
    """A training row leaks the held-out rows that share it."""


def split_key(conversation: Conversation, seed: int) -> int:
    """A number of 64 bits, evenly spread, that the text and the seed decide."""
    return _spread([seed, conversation.to_dict()])


def group_split_key(values: Mapping[str, object], column: str, seed: int) -> int:
    """The same for all rows that share the value of a column.

    Raises:
        UnusableRowError: The row has no such value, or it is a list or an object.
    """
    value = values.get(column)
    if value is None or isinstance(value, list | dict):
        kind = "no value" if value is None else f"a {type(value).__name__}"
        raise UnusableRowError(f"has {kind} in column {column}, which data.held_out.group names")
    return _spread([seed, "group", str(value)])


def text_key(conversation: Conversation) -> int:
    """A hash of 64 bits of what is said, whatever its case, its spaces and its form.

    Of ten million rows, two different ones share it in one of 370,000 data sets.
    """
    return _hash(_plain(conversation.messages))


def answers_key(prompt: Conversation, answers: Sequence[Message]) -> int:
    """A hash of 64 bits of a prompt and its answers, as they stand and in any order."""
    return _hash(json.dumps([prompt.to_dict(), sorted(map(_as_text, answers))], sort_keys=True))


def shingles(messages: Sequence[Message]) -> set[str]:
    """Every five characters of what is said, whatever its case and its spaces."""
    text = _plain(messages)
    return {text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1))}


def _as_text(message: Message) -> str:
    return json.dumps(message.to_dict(), sort_keys=True)


def _plain(messages: Sequence[Message]) -> str:
    return " ".join("\n".join(message.content for message in messages).casefold().split())


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _spread(value: list[object]) -> int:
    text = json.dumps(value, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
