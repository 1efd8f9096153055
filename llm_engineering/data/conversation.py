"""Turning a row into a conversation: the one form everything after this works on."""

from __future__ import annotations

from typing import Any

Message = dict[str, str]

RESPONSE_COLUMNS = ("response", "output")
ROLES = ("system", "user", "assistant")


class UnusableRowError(ValueError):
    """A row that cannot be trained on; the message is the reason."""


def to_conversation(values: dict[str, Any]) -> list[Message]:
    """Read a row as chat messages.

    Two forms are known: ``messages`` (a list of ``{"role", "content"}``, the last from the
    assistant), and ``instruction`` with ``response`` or ``output`` (and optionally ``input``,
    appended to the instruction as in Alpaca).

    Returns:
        Messages in order; roles are system (first only), then user and assistant in turns.

    Raises:
        UnusableRowError: The row has neither form, or a text is missing, empty or no text.
    """
    if "messages" in values:
        return _from_messages(values["messages"])
    if "instruction" in values:
        column = next((name for name in RESPONSE_COLUMNS if name in values), None)
        if column is None:
            raise UnusableRowError("has an instruction but neither a response nor an output column")
        instruction = _text(values["instruction"], "instruction")
        context = values.get("input")
        if context is not None and context != "":
            instruction += "\n\n" + _text(context, "input")
        return [
            {"role": "user", "content": instruction},
            {"role": "assistant", "content": _text(values[column], column)},
        ]
    raise UnusableRowError(
        f"has columns {', '.join(map(str, values)) or '(none)'}; expected messages, "
        "or instruction with response (or output)"
    )


def _from_messages(messages: Any) -> list[Message]:
    if not isinstance(messages, list) or not messages:
        raise UnusableRowError(
            f"messages is {_kind(messages)}, expected a list of role and content"
        )
    conversation: list[Message] = []
    for number, message in enumerate(messages, start=1):
        where = f"message {number}"
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise UnusableRowError(f"{where} has no role and content")
        role = message["role"]
        if role not in ROLES:
            raise UnusableRowError(f"{where} has role {role!r}; known: {', '.join(ROLES)}")
        if role == "system" and number > 1:
            raise UnusableRowError(f"{where} is a system message; only the first may be")
        previous = conversation[-1]["role"] if conversation else None
        if role == "assistant" and previous != "user":
            raise UnusableRowError(f"{where} is the assistant's but does not follow a user's")
        if role == "user" and previous == "user":
            raise UnusableRowError(f"{where} is a second user message in a row")
        conversation.append({"role": role, "content": _text(message["content"], where)})
    if conversation[-1]["role"] != "assistant":
        raise UnusableRowError(
            f"ends with a {conversation[-1]['role']} message; nothing to learn from"
        )
    return conversation


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise UnusableRowError(f"{what} is {_kind(value)}, expected text")
    if not value.strip():
        raise UnusableRowError(f"{what} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UnusableRowError(f"{what} holds a lone surrogate, which is no text") from None
    if "\x00" in value:
        raise UnusableRowError(f"{what} holds a NUL character")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"{type(value).__name__}"
