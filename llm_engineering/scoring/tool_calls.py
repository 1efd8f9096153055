"""Tool calls in an answer's text, as the families write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llm_engineering.scoring.answers import Call

_NAME, _ARGUMENTS = ("name", "function"), ("arguments", "parameters")
_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)  # Hermes, Qwen, Granite
_MISTRAL = re.compile(r"\[TOOL_CALLS\]\s*(\w+)?(?:\[ARGS\])?")


def read_calls(text: str) -> list[Call]:
    """The calls that a text makes, in their order; what is not JSON of a call is none.

    Understood are ``<tool_call>JSON</tool_call>``, ``[TOOL_CALLS]JSON``, and JSON alone, behind
    special tokens too; JSON is an object with a name and arguments (or parameters), or a list of such.

    Args:
        text: The answer with its special tokens.
    """
    tagged = _TAGGED.findall(text)
    if tagged:
        return [call for part in tagged for call in _of_json(part)]
    mistral = _MISTRAL.search(text)
    if mistral is not None:
        rest = text[mistral.end() :]
        if (name := mistral[1]) is not None:  # its newer form: NAME[ARGS]{...}
            value = _first_json(rest)
            return [{"name": name, "arguments": value}] if isinstance(value, dict) else []
        return list(_of_json(rest))
    return list(_of_json(re.sub(r"<\|[^|>]*\|>", "", text)))


def _of_json(text: str) -> Iterator[Call]:
    value = _first_json(text)
    for one in value if isinstance(value, list) else [value]:
        call = _call(one)
        if call is not None:
            yield call


def _first_json(text: str) -> Any:
    """The JSON that a text begins with; None where it begins with none."""
    try:
        return json.JSONDecoder().raw_decode(text.strip())[0]
    except (ValueError, RecursionError):
        return None


def _call(value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):  # OpenAI's form
        value = value["function"]
    name = next((value[key] for key in _NAME if isinstance(value.get(key), str)), None)
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    if isinstance(arguments, str):
        arguments = _first_json(arguments)
    if name is None or not isinstance(arguments, dict):
        return None
    return {"name": name, "arguments": arguments}
