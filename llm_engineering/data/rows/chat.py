"""Messages of every dialect (OpenAI, trl, ShareGPT, mistral, axolotl, ms-swift) as ``Message``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llm_engineering.data.rows.message import Message, Role, ToolCall
from llm_engineering.data.rows.text import holds_nothing, is_clean, kind, read_text
from llm_engineering.data.rows.tools import from_json, read_call_text, read_calls, read_tools
from llm_engineering.data.rows.unread import Unread, note_unread
from llm_engineering.data.rows.unusable import UnusableRowError

_ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
_FOLLOWS: Final[Mapping[Role, tuple[Role | None, ...]]] = {
    "user": (None, "assistant", "tool"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
"""What a message may follow, but for system messages between."""
_MISPLACED: Final[Mapping[Role, str]] = {
    "user": "is a second user message in a row",
    "assistant": "is the assistant's but does not follow a user's",
    "tool": "is a tool's result but follows no message of the assistant",
}
_CALLS = ("function_call", "tool_call")  # what such a message says is calls in JSON
_REASONING = ("reasoning_content", "reasoning", "thinking")
_LOSS = ("weight", "train", "training", "loss", "loss_scale")
_TOOLS = ("tools", "functions")
_TEXT_PARTS = ("text", "input_text", "output_text")
_THOUGHT_PARTS = ("thinking", "reasoning")
_MAY_BE_EMPTY = ("system", "developer", "tool")


@dataclass(slots=True)
class Chat:
    """Messages that were read, and the tools that a system message among them brought."""

    messages: list[Message]
    tools: list[Mapping[str, Any]] = field(default_factory=list)


def read_messages(
    values: Sequence[object], path: str, unread: Unread, *, loss: bool = True
) -> Chat:
    """Read messages in their order.

    Each has a speaker (``role`` or ``from``) and a text (``content`` or ``value``; a list of text
    parts is joined). An assistant's may have reasoning (``reasoning_content``, ``reasoning`` or
    ``thinking``), ``tool_calls`` or a ``function_call``; a message from ``function_call`` or
    ``tool_call`` is calls alone, and joins the assistant's before it. A thought within the text,
    ``<think>...</think>``, stays there: the templates of Qwen3 and DeepSeek part it from the answer
    themselves, and others train it as text. ``weight``, ``train``, ``training``, ``loss`` or
    ``loss_scale`` says whether a message is trained.

    Args:
        values: The messages as the row has them.
        path: Of their list, e.g. ``messages``.
        unread: Receives the names of keys that nothing uses.
        loss: Whether marks for the loss have a meaning here; else they are not read.

    Raises:
        UnusableRowError: A message is none, has no known speaker, lacks a text, or has content
            that is not supported.
    """
    chat = Chat([])
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise UnusableRowError(f"message {number} has no {_keys(path)}")
        plain = _plain(value)  # the most of them, by far
        if plain is not None:
            chat.messages.append(plain)
            continue
        where = f"message {number}"
        message, joins = _message(value, where, f"{path}[].", unread, loss, chat)
        if joins and chat.messages and chat.messages[-1].role == "assistant":
            chat.messages[-1] = _joined(chat.messages[-1], message, where)
        else:
            chat.messages.append(message)
    return chat


def check_order(messages: Sequence[Message]) -> None:
    """Check that the messages are a conversation that ends with an answer.

    A user's and an assistant's messages take turns; results of tools stand behind an assistant's
    message; system messages may stand anywhere. What of that a model's chat template can render is
    asked of the template.

    Raises:
        UnusableRowError: They are none.
    """
    previous: Role | None = None
    for number, message in enumerate(messages, start=1):
        role = message.role
        if role in ("system", "developer"):
            continue
        if previous not in _FOLLOWS[role]:
            raise UnusableRowError(f"message {number} {_MISPLACED[role]}")
        previous = role
    last = messages[-1].role if messages else "no"
    if last != "assistant":
        raise UnusableRowError(f"ends with a {last} message; nothing to learn from")


def check_trained(messages: Sequence[Message]) -> None:
    """Check that the marks of the messages leave something to train.

    Raises:
        UnusableRowError: They do not.
    """
    if all(one.trained is False for one in messages if one.role == "assistant"):
        raise UnusableRowError(
            "no message of the assistant is trained: the marks (weight, train, loss) leave all out"
        )


def _plain(value: Mapping[str, Any]) -> Message | None:
    """A message of a role and a clean text, and nothing else; None: it is to be looked at."""
    if len(value) != 2:
        return None
    role, content = value.get("role"), value.get("content")
    if (role == "user" or role == "assistant") and isinstance(content, str) and is_clean(content):
        return Message(role, content)
    return None


def _message(
    value: Mapping[str, Any], where: str, path: str, unread: Unread, loss: bool, chat: Chat
) -> tuple[Message, bool]:
    """A message, and whether it is calls alone, which join the message before."""
    speaker = "from" if value.get("role") is None and "from" in value else "role"
    content_key = "value" if value.get("content") is None and "value" in value else "content"
    used = {speaker, content_key}
    said = value.get(speaker)
    if said is None:
        raise UnusableRowError(f"{where} has no {_keys(path)}")
    name = said.strip().lower() if isinstance(said, str) else None
    role = _ROLES.get(name) if name is not None else None
    if role is None or name is None:
        raise UnusableRowError(f"{where} has role {said!r}; known: {', '.join(_ROLES)}")

    content, thought = value.get(content_key), ""
    calls: tuple[ToolCall, ...] = ()
    if isinstance(content, list | dict) and name not in _CALLS:
        content, thought = _joined_parts(content, where, f"{path}{content_key}[].", unread)
    extra: dict[str, Any] = {}
    if name in _CALLS:
        calls_path = f"{path}{content_key}[]."
        if isinstance(content, str):
            content, calls = read_call_text(content, where, calls_path, unread)
        else:
            content, calls = "", read_calls(content, where, calls_path, unread)
    if role == "assistant":
        used |= {*_REASONING, "tool_calls", "function_call"}
        calls += _calls(value, where, path, unread)
        extra["tool_calls"] = calls
        extra["reasoning"] = _reasoning(value, where, thought)
    elif thought:
        raise UnusableRowError(f"{where} has a thought, and is not the assistant's")
    if role == "tool":
        used |= {"tool_call_id", "name"}
        for key in ("tool_call_id", "name"):
            if not holds_nothing(value.get(key)):
                extra[key] = read_text(value[key], f"{where}: {key}")
    if role in ("system", "developer"):
        used |= {*_TOOLS}
        for key in _TOOLS:
            if not holds_nothing(value.get(key)):
                same_tools(chat.tools, read_tools(value[key], f"{where}: {key}"), where)
    if loss:
        used |= {*_LOSS}
        extra["trained"] = _trained(value, where)
        if extra["trained"] and role != "assistant":
            raise UnusableRowError(
                f"{where} ({role}) is marked to be trained, and only the assistant's can be: leave "
                "the mark out; data.loss_on: everything trains prompts too"
            )
    note_unread(value, used, path, unread)
    if not isinstance(value.get(content_key), str) and content is None and calls:
        content = ""
    if content is None and content_key not in value:
        raise UnusableRowError(f"{where} has no {_keys(path)}")
    text = read_text(content, where, may_be_empty=bool(calls) or role in _MAY_BE_EMPTY)
    return Message(role, text, **extra), name in _CALLS


def _keys(path: str) -> str:
    """What a message of a column should have."""
    return "from and value" if path.startswith("conversation") else "role and content"


def _joined(before: Message, calls: Message, where: str) -> Message:
    """A message and the calls that it makes, which the row has as a message of their own."""
    if calls.trained is not None and before.trained not in (None, calls.trained):
        raise UnusableRowError(f"{where} is trained and the message that it belongs to is not")
    return replace(
        before,
        content=before.content + calls.content,
        tool_calls=before.tool_calls + calls.tool_calls,
        trained=before.trained if calls.trained is None else calls.trained,
    )


def _joined_parts(content: object, where: str, path: str, unread: Unread) -> tuple[str | None, str]:
    """The text of a list of parts, and what of it is thought."""
    texts, thoughts = [], []
    if isinstance(content, dict):
        raise UnusableRowError(f"{where} is dict, expected text")
    if not isinstance(content, list) or not content:
        return None, ""
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        sort = part.get("type", "text") if isinstance(part, dict) else None
        if sort in _THOUGHT_PARTS and isinstance(part, dict):
            key = sort if sort in part else "text"
            note_unread(part, ("type", key), path, unread)
            thought = part.get(key)
            if isinstance(thought, list):
                thought, _ = _joined_parts(thought, where, f"{path}{key}[].", unread)
            thoughts.append(read_text(thought, f"{where}: {sort}", may_be_empty=True))
        elif sort in _TEXT_PARTS and isinstance(part, dict):
            note_unread(part, ("type", "text"), path, unread)
            texts.append(read_text(part.get("text"), where, may_be_empty=True))
        else:
            shown = repr(sort) if isinstance(part, dict) else kind(part)
            raise UnusableRowError(
                f"{where} has a part of type {shown}; supported are parts of text: images, sound, "
                "video and files are not"
            )
    return "".join(texts), "".join(thoughts)


def _calls(value: Mapping[str, Any], where: str, path: str, unread: Unread) -> tuple[ToolCall, ...]:
    given, former = value.get("tool_calls"), value.get("function_call")
    if not holds_nothing(given):
        if not holds_nothing(former):
            raise UnusableRowError(f"{where} has tool_calls and a function_call; keep one")
        return read_calls(given, where, f"{path}tool_calls[].", unread)
    if not holds_nothing(former):
        return read_calls(former, where, f"{path}function_call.", unread)
    return ()


def _reasoning(value: Mapping[str, Any], where: str, thought: str) -> str:
    given = {
        key: read_text(value[key], f"{where}: {key}")
        for key in _REASONING
        if not holds_nothing(value.get(key))
    }
    if thought:
        given["content"] = thought
    if len(set(given.values())) > 1:
        raise UnusableRowError(f"{where} has two thoughts, {' and '.join(given)}; keep one")
    return next(iter(given.values()), "")


def _trained(value: Mapping[str, Any], where: str) -> bool | None:
    """What the marks of a message say; None: nothing."""
    found = None
    for key in _LOSS:
        given = value.get(key)
        if given is None:
            continue
        mark = as_bool(given)
        if mark is None:
            raise UnusableRowError(
                f"{where} has {key} {given!r}; supported are 0 and 1, which leave a message out of "
                "the loss or in it"
            )
        if found not in (None, mark):
            raise UnusableRowError(f"{where} has marks for the loss that differ ({key}: {given!r})")
        found = mark
    return found


_BOOLS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def as_bool(value: object) -> bool | None:
    """True and false as JSON, CSV, NumPy and tables of numbers write them; None: it is neither."""
    return _BOOLS.get(str(value).strip().lower())


def same_tools(tools: list[Mapping[str, Any]], more: list[Mapping[str, Any]], where: str) -> None:
    """Add tools that a row names in a second place.

    Raises:
        UnusableRowError: It names others there.
    """
    if tools and more and tools != more:
        raise UnusableRowError(f"{where} names other tools than the row does elsewhere; keep one")
    if not tools:
        tools += more


def message_list(value: object, column: str) -> list[object]:
    """A column as the list of messages that it is, or that its JSON text is.

    Raises:
        UnusableRowError: It is none.
    """
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        value = from_json(value, column)
    if not isinstance(value, list) or not value:
        seen = "an empty list" if value == [] else kind(value)
        raise UnusableRowError(f"{column} is {seen}, expected a list of {_keys(column)}")
    return value
