"""A message, and a conversation of them: what every form of a row is read as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Role = Literal["system", "developer", "user", "assistant", "tool", "text"]
TEXT_ROLE: Final = "text"
"""Role of a plain text's messages, which no chat template renders."""

MessageDict = dict[str, Any]
"""A message as JSON stores it; without ``trained``, as chat templates take it (trl's names)."""
ConversationDict = dict[str, Any]
"""``{"messages"}``, and ``"tools"`` where there are some."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that an assistant's message makes."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str
    reasoning: str = ""
    """What the assistant thought before it answered."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    """Of a tool's result: the call that it answers."""
    name: str | None = None
    """Of a tool's result: the tool."""
    trained: bool | None = None
    """Whether the data says to train it; None: ``data.loss_on`` decides."""

    def to_dict(self) -> MessageDict:
        """As JSON stores it: only what it has."""
        values = self.to_template()
        if self.trained is not None:
            values["trained"] = self.trained
        return values

    def to_template(self) -> MessageDict:
        """As a chat template takes it."""
        values: MessageDict = {"role": self.role, "content": self.content}
        if self.reasoning:
            values["reasoning_content"] = self.reasoning
        if self.tool_calls:
            values["tool_calls"] = [_call_dict(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            values["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            values["name"] = self.name
        return values

    @classmethod
    def from_dict(cls, values: MessageDict) -> Message:
        """What ``to_dict`` gave."""
        if len(values) == 2:  # the most of them, by far
            return cls(values["role"], values["content"])
        return cls(
            values["role"],
            values["content"],
            values.get("reasoning_content", ""),
            tuple(
                ToolCall(one["function"]["name"], one["function"]["arguments"], one.get("id"))
                for one in values.get("tool_calls", ())
            ),
            values.get("tool_call_id"),
            values.get("name"),
            values.get("trained"),
        )


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, and the tools that the assistant may call, as JSON schemas."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()

    def to_dict(self) -> ConversationDict:
        """As JSON stores it."""
        values: ConversationDict = {"messages": [one.to_dict() for one in self.messages]}
        if self.tools:
            values["tools"] = list(self.tools)
        return values

    @classmethod
    def from_dict(cls, values: ConversationDict) -> Conversation:
        """What ``to_dict`` gave."""
        messages = [Message.from_dict(one) for one in values["messages"]]
        return cls(messages, values.get("tools", ()))

    def with_answer(self, answer: Message) -> Conversation:
        """The conversation that this one becomes by an answer."""
        return Conversation([*self.messages, answer], self.tools)

    def until(self, end: int) -> Conversation:
        """Its messages before number ``end``, counted from 0."""
        return Conversation(self.messages[:end], self.tools)


def _call_dict(call: ToolCall) -> dict[str, Any]:
    values: dict[str, Any] = {
        "type": "function",
        "function": {"name": call.name, "arguments": dict(call.arguments)},
    }
    return values if call.id is None else {"id": call.id, **values}
