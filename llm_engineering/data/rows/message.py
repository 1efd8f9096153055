"""A message: who says what. Every form of a conversation is read as a list of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, cast

Role = Literal["system", "user", "assistant", "text"]
TEXT_ROLE: Final = "text"
"""Role of the one message of a plain text, which no chat template renders."""

MessageDict = dict[str, str]
"""A message as JSON stores it and chat templates take it: ``{"role", "content"}``."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str

    def to_dict(self) -> MessageDict:
        """As JSON stores it, and as a chat template takes it."""
        return {"role": self.role, "content": self.content}

    @classmethod
    def from_dict(cls, values: MessageDict) -> Message:
        """What ``to_dict`` gave."""
        return cls(cast(Role, values["role"]), values["content"])


def to_dicts(conversation: Iterable[Message]) -> list[MessageDict]:
    """The messages as JSON stores them, and as a chat template takes them."""
    return [message.to_dict() for message in conversation]


def from_dicts(values: Iterable[MessageDict]) -> list[Message]:
    """What ``to_dicts`` gave."""
    return [Message.from_dict(one) for one in values]
