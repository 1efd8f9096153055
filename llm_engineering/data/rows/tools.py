"""Tools that a conversation may call, and the calls that its messages make, in every dialect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm_engineering.data.rows.message import ToolCall
from llm_engineering.data.rows.text import holds_nothing, kind, read_text
from llm_engineering.data.rows.unread import Unread, note_unread
from llm_engineering.data.rows.unusable import UnusableRowError

_THOUGHT = "</think>"


def read_tools(value: object, what: str) -> list[Mapping[str, Any]]:
    """The tools of a row as OpenAI writes them: ``{"type": "function", "function": {...}}``.

    A list or its JSON text; a tool without that frame (ShareGPT, OpenAI's ``functions``) gets it.
    A tool's schema is kept whole.

    Raises:
        UnusableRowError: It is no such list, or a tool has no name.
    """
    given = from_json(value, what)
    if holds_nothing(given):
        return []
    if isinstance(given, dict):
        given = [given]
    if not isinstance(given, list):
        raise UnusableRowError(f"{what} is {kind(given)}, expected a list of tools")
    tools: list[Mapping[str, Any]] = []
    for number, one in enumerate(given, start=1):
        tool = from_json(one, f"{what}: tool {number}")
        if not isinstance(tool, dict):
            raise UnusableRowError(f"{what}: tool {number} is {kind(tool)}, expected an object")
        if isinstance(tool.get("function"), dict):
            framed = tool if "type" in tool else {"type": "function", **tool}
        elif "name" in tool:
            framed = {"type": "function", "function": tool}
        else:
            raise UnusableRowError(
                f"{what}: tool {number} has neither a function nor a name; expected "
                '{"type": "function", "function": {"name", "description", "parameters"}}'
            )
        if not isinstance(framed["function"].get("name"), str):
            raise UnusableRowError(f"{what}: tool {number} has no name")
        tools.append(_kept_as_json(framed, f"{what}: tool {number}"))
    return tools


def read_calls(value: object, where: str, path: str, unread: Unread) -> tuple[ToolCall, ...]:
    """The calls of a message: a list of them or one, as objects or as JSON text.

    A call is ``{"id", "type", "function": {"name", "arguments"}}`` or ``{"name", "arguments"}``;
    arguments are an object or its JSON text.

    Raises:
        UnusableRowError: A call has no name, or its arguments are no object.
    """
    given = from_json(value, where)
    calls = given if isinstance(given, list) else [given]
    return tuple(_call(call, f"{where}: call {n}", path, unread) for n, call in enumerate(calls, 1))


def read_call_text(
    text: str, where: str, path: str, unread: Unread
) -> tuple[str, tuple[ToolCall, ...]]:
    """What ShareGPT's ``function_call`` says: thoughts, if any, before the JSON of its calls."""
    thought, end, calls = (
        text.rpartition(_THOUGHT) if text.startswith("<think>") else ("", "", text)
    )
    return thought + end, read_calls(calls.strip(), where, path, unread)


def from_json(value: object, what: str) -> object:
    """A value, or what it says where it is JSON text.

    Raises:
        UnusableRowError: It is text that is not JSON.
    """
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        return json.loads(value, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise UnusableRowError(f"{what} is not JSON: {error}") from None


def _call(value: object, where: str, path: str, unread: Unread) -> ToolCall:
    value = from_json(value, where)
    if not isinstance(value, dict):
        raise UnusableRowError(
            f"{where} is {kind(value)}, expected an object with name and arguments"
        )
    function, inner = value.get("function"), path
    if isinstance(function, dict):
        note_unread(value, ("id", "type", "function"), path, unread)
        inner += "function."
        note_unread(function, ("name", "arguments"), inner, unread)
    else:
        function = value
        note_unread(value, ("id", "type", "name", "arguments"), path, unread)
    sort = value.get("type")
    if sort not in (None, "function"):
        raise UnusableRowError(f"{where} is of type {sort!r}; supported: function")
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UnusableRowError(f"{where} names no function")
    arguments = from_json(function.get("arguments"), f"{where}: arguments")
    if holds_nothing(arguments):
        arguments = {}
    if not isinstance(arguments, dict):
        raise UnusableRowError(f"{where}: arguments are {kind(arguments)}, expected an object")
    number = value.get("id")
    if number is not None and not isinstance(number, str):
        raise UnusableRowError(f"{where}: its id is {kind(number)}, expected text")
    if number is not None:
        read_text(number, f"{where}: its id")
    _kept_as_json(arguments, f"{where}: arguments")
    return ToolCall(read_text(name, f"{where}: its name"), arguments, number)


def _kept_as_json(value: dict[str, Any], what: str) -> dict[str, Any]:
    """The value, if JSON can say it: a table's may hold times and numbers that are none."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UnusableRowError(f"{what} cannot be written as JSON: {error}") from None
    return value


def _unique(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("names a key twice")
    return values
