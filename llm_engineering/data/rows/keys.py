"""What a row is compared by: keys of 64 bits, which equal rows share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llm_engineering.data.rows.message import TEXT_ROLE, Conversation, Message
from llm_engineering.data.rows.unusable import UnusableRowError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_ODD = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64's
_MASK = 2**64 - 1


class RowKeys(NamedTuple):
    """Numbers of 64 bits by which a row is compared with others."""

    equal: int
    """Equal rows share it; rows that say the opposite differ in its last bit alone."""
    prompt: int
    """Rows that share it are held out together, and a training row leaks the held-out ones that
    share it; as of ``prompt_key``."""


def first_prompt(conversation: Conversation) -> Sequence[Message]:
    """What stands before the first answer: system and first user message, as a rule.

    An assistant's message answers if a user or a tool spoke before it; of a plain text, what the
    data says to train behind what it says not to. Where nothing is answered, all of it.
    """
    asked = False
    for end, message in enumerate(conversation.messages):
        if message.role == TEXT_ROLE:
            if asked and message.trained:
                return conversation.messages[:end]
            asked = message.trained is False
        elif message.role == "assistant":
            if asked:
                return conversation.messages[:end]
        else:
            asked = asked or message.role in ("user", "tool")
    return conversation.messages


def prompt_key(conversation: Conversation) -> int:
    """A hash of 64 bits of the first prompt, whatever its case and its spaces.

    Conversations unrolled to their prefixes share it, and so do many answers to one prompt. Of ten
    million prompts, two different ones share it in one of 370,000 data sets.
    """
    return _hash(plain_text(first_prompt(conversation)))


def group_key(values: Mapping[str, object], column: str) -> int:
    """A hash of 64 bits of a column's value.

    Raises:
        UnusableRowError: The row has no such value, or it is a list or an object.
    """
    value = values.get(column)
    if value is None or isinstance(value, list | dict):
        kind = "no value" if value is None else f"a {type(value).__name__}"
        raise UnusableRowError(f"has {kind} in column {column}, which data.held_out.group names")
    return _hash(f"group {value}")


def conversation_key(conversation: Conversation) -> int:
    """A hash of 64 bits of all of it as it stands: tools, reasoning and what is trained too."""
    return _hash(json.dumps(conversation.to_dict(), sort_keys=True))


def answers_key(prompt: Conversation, answers: Sequence[Message]) -> int:
    """A hash of 64 bits of a prompt and its answers, as they stand and in any order."""
    return _hash(json.dumps([prompt.to_dict(), sorted(map(as_text, answers))], sort_keys=True))


def spread(keys: NDArray[numpy.uint64], seed: int) -> NDArray[numpy.uint64]:
    """Other numbers than the keys, evenly spread, that the keys and a seed decide.

    The finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014, section 5), which is a bijection: different keys stay different.

    Args:
        keys: Numbers of 64 bits, shape ``(rows,)``.
        seed: From 0; with each, independent ones.
    """
    uint64 = keys.dtype.type
    mixed = keys ^ uint64(_finalised(seed))
    mixed += uint64(_ODD[0])  # in place: of many keys, two copies are in memory and not seven
    mixed ^= mixed >> uint64(30)
    mixed *= uint64(_ODD[1])
    mixed ^= mixed >> uint64(27)
    mixed *= uint64(_ODD[2])
    mixed ^= mixed >> uint64(31)
    return mixed


def plain_text(messages: Sequence[Message]) -> str:
    """What is said, in small letters and with single spaces: thoughts and tool calls too."""
    return " ".join("\n".join(map(_said, messages)).casefold().split())


def as_text(message: Message) -> str:
    """All of a message as it stands, by which it is compared and ordered."""
    return json.dumps(message.to_dict(), sort_keys=True)


def _said(message: Message) -> str:
    if not message.reasoning and not message.tool_calls:
        return message.content
    calls = [
        f"{call.name} {json.dumps(dict(call.arguments), sort_keys=True, ensure_ascii=False)}"
        for call in message.tool_calls
    ]
    return "\n".join(filter(None, [message.reasoning, message.content, *calls]))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _finalised(number: int) -> int:
    mixed = (number + _ODD[0]) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * _ODD[1]) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * _ODD[2]) & _MASK
    return mixed ^ (mixed >> 31)
