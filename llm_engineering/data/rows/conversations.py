"""Turning a row into a conversation: the one shape that everything after this works on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llm_engineering.configuration.data import RowForm
from llm_engineering.data.rows.forms import RESPONSE_COLUMNS, form_of
from llm_engineering.data.rows.message import TEXT_ROLE, Conversation, Message, Role
from llm_engineering.data.rows.unusable import UnusableRowError

_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_SHAREGPT_ROLES: Mapping[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}


def to_conversation(values: Mapping[str, object], form: RowForm | None = None) -> Conversation:
    """Read a row as a conversation.

    - messages: a list of ``{"role", "content"}``, the last from the assistant;
    - sharegpt: ``conversations``, a list of ``{"from", "value"}``, or of the former;
    - alpaca: ``instruction`` with ``response``, ``output`` or ``answer``; ``input``, if there is
      one, is appended to the instruction;
    - prompt_completion: both of them texts, or lists of messages (as trl takes them);
    - text: ``text``, as one message of role "text".

    A ``system`` column beside alpaca or sharegpt becomes the first message.

    Args:
        values: The row's columns.
        form: Its form; None tells it by the columns.

    Returns:
        Messages in order; roles are system (first only), then user and assistant in turns.

    Raises:
        UnusableRowError: The row is of no known form, or a text is missing, empty or no text.
    """
    return Conversation(_READERS[form or form_of(values)](values))


def _from_alpaca(values: Mapping[str, object]) -> list[Message]:
    if "instruction" not in values:
        raise UnusableRowError("has no instruction column")
    given = [name for name in RESPONSE_COLUMNS if name in values]
    column = next((name for name in given if values[name] is not None), next(iter(given), None))
    if column is None:
        raise UnusableRowError("has an instruction but neither a response nor an output column")
    instruction = _text(values["instruction"], "instruction")
    context = values.get("input")
    if context is not None and context != "":
        instruction += "\n\n" + _text(context, "input")
    return [
        *_system(values),
        Message("user", instruction),
        Message("assistant", _text(values[column], column)),
    ]


def _from_prompt_completion(values: Mapping[str, object]) -> list[Message]:
    if "label" in values:
        raise UnusableRowError(
            "has a label beside prompt and completion: set train.objective to kto to learn from it"
        )
    for column in ("prompt", "completion"):
        if column not in values:
            raise UnusableRowError(f"has no {column} column")
    messages: list[object] = []
    for column, role in (("prompt", "user"), ("completion", "assistant")):
        value = values[column]
        if isinstance(value, list):
            messages += value
        else:
            messages.append({"role": role, "content": _text(value, column)})
    return _turns(messages)


def _from_messages(values: Mapping[str, object]) -> list[Message]:
    return _turns(_list(values, "messages", "role and content"))


def _from_sharegpt(values: Mapping[str, object]) -> list[Message]:
    given = _list(values, "conversations", "from and value")
    first = given[0]
    if isinstance(first, dict) and "role" in first and "from" not in first:
        return _turns([*_system_dicts(values), *given])
    messages: list[object] = []
    for number, turn in enumerate(given, start=1):
        if not isinstance(turn, dict) or "from" not in turn or "value" not in turn:
            raise UnusableRowError(f"message {number} has no from and value")
        speaker = turn["from"]
        role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise UnusableRowError(
                f"message {number} is from {speaker!r}; known: {', '.join(_SHAREGPT_ROLES)}"
            )
        messages.append({"role": role, "content": turn["value"]})
    return _turns([*_system_dicts(values), *messages])


def _from_text(values: Mapping[str, object]) -> list[Message]:
    if "text" not in values:
        raise UnusableRowError("has no text column")
    return [Message(TEXT_ROLE, _text(values["text"], "text"))]


_READERS: dict[str, Callable[[Mapping[str, object]], list[Message]]] = {
    "alpaca": _from_alpaca,
    "prompt_completion": _from_prompt_completion,
    "messages": _from_messages,
    "sharegpt": _from_sharegpt,
    "text": _from_text,
}


def _system(values: Mapping[str, object]) -> list[Message]:
    value = values.get("system")
    if value is None or value == "":
        return []
    return [Message("system", _text(value, "system"))]


def _system_dicts(values: Mapping[str, object]) -> list[object]:
    return [message.to_dict() for message in _system(values)]


def _list(values: Mapping[str, object], column: str, keys: str) -> list[object]:
    value = values.get(column)
    if not isinstance(value, list) or not value:
        seen = "an empty list" if value == [] else _kind(value)
        raise UnusableRowError(f"{column} is {seen}, expected a list of {keys}")
    return value


def _turns(messages: Sequence[object]) -> list[Message]:
    conversation: list[Message] = []
    for number, message in enumerate(messages, start=1):
        where = f"message {number}"
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise UnusableRowError(f"{where} has no role and content")
        given = message["role"]
        role = _ROLES.get(given) if isinstance(given, str) else None
        if role is None:
            raise UnusableRowError(f"{where} has role {given!r}; known: {', '.join(_ROLES)}")
        if role == "system" and number > 1:
            raise UnusableRowError(f"{where} is a system message; only the first may be")
        previous = conversation[-1].role if conversation else None
        if role == "assistant" and previous != "user":
            raise UnusableRowError(f"{where} is the assistant's but does not follow a user's")
        if role == "user" and previous == "user":
            raise UnusableRowError(f"{where} is a second user message in a row")
        conversation.append(Message(role, _text(message["content"], where)))
    if conversation[-1].role != "assistant":
        raise UnusableRowError(
            f"ends with a {conversation[-1].role} message; nothing to learn from"
        )
    return conversation


def _text(value: object, what: str) -> str:
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


def _kind(value: object) -> str:
    return "null" if value is None else type(value).__name__
