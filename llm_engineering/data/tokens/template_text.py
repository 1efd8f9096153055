"""Whether a chat template's text has what a message says, and where an answer in it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llm_engineering.data.rows.message import Message
from llm_engineering.data.rows.unusable import UnusableRowError

THINK, END_THINK = "<think>", "</think>"
"""How the open models write what they thought, where a text and not the template says it."""

_THINKING = (
    (THINK, END_THINK),
    ("<|channel>thought", "<channel|>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
)
"""How families of models enclose what they thought."""

_EMPTY_THINKING = re.compile(
    "|".join(rf"(?:{re.escape(begin)})?\s*{re.escape(end)}" for begin, end in _THINKING)
)
_CLOSED = re.compile(rf"(?:{_EMPTY_THINKING.pattern})\s*$")
_SHOWN = 60  # characters of a text in a message


class Thought(NamedTuple):
    """What an assistant's message thought, and what it answered."""

    reasoning: str
    content: str


def thought(message: Message) -> Thought:
    """Both of a message, also where its content brings the first in ``<think>``."""
    content = message.content
    if not message.reasoning and content.lstrip().startswith(THINK) and END_THINK in content:
        before, _, after = content.partition(END_THINK)
        return Thought(before.partition(THINK)[2].strip(), after.strip())
    return Thought(message.reasoning.strip(), content.strip())


def is_empty_thinking(answer: str) -> bool:
    """Whether an answer begins with thinking that has no thought in it."""
    return _EMPTY_THINKING.match(answer.lstrip()) is not None


def without_closed_thinking(prompt: str) -> str | None:
    """A prompt without the thinking that it closes, empty, at its end; None: it closes none."""
    for found in _CLOSED.finditer(prompt):
        return prompt[: found.start()]
    return None


def past_empty_thinking(text: str) -> str:
    """A text behind thinking that it begins with and that has no thought in it."""
    text = text.lstrip()
    found = _EMPTY_THINKING.match(text)
    return text if found is None else text[found.end() :].lstrip()


def shown(text: str) -> str:
    """The beginning of a text, quoted."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def difference(one: str, other: str) -> str:
    """Where two texts first differ, for a message."""
    pairs = enumerate(zip(one, other, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
    start = max(0, place - 20)
    return f"{shown(one[start:])} against {shown(other[start:])} at character {place}"


def has_text(value: str, text: str) -> bool:
    """Whether a text has a value, as it stands or as JSON writes it; templates may trim it."""
    value = value.strip()
    return (
        value in text
        or json.dumps(value, ensure_ascii=False)[1:-1] in text
        or json.dumps(value)[1:-1] in text
    )


def has_result(content: str, text: str) -> bool:
    """As ``has_text``; of a JSON value, whether all that it holds is there in another form."""
    if has_text(content, text):
        return True
    try:
        value = json.loads(content)
    except ValueError:
        return False
    return isinstance(value, dict | list) and _has_leaves(value, text)


def lacking_call(message: Message, text: str) -> str | None:
    """What of a message's tool calls a text does not have; None: nothing."""
    for call in message.tool_calls:
        if call.name not in text:
            return f"the call of {call.name}"
        if not _has_leaves(call.arguments, text):
            return f"the arguments of {call.name}"
    return None


def lacking_tool(tools: Sequence[Mapping[str, Any]], text: str) -> str | None:
    """The first tool whose name a text does not have; None: it has all."""
    for tool in tools:
        name = str(tool.get("function", tool).get("name", ""))
        if name not in text:
            return name or "a tool without a name"
    return None


def stop_pattern(stops: Sequence[str]) -> re.Pattern[str]:
    """Finds the texts of stop tokens; the longest first, where one begins another."""
    return re.compile("|".join(re.escape(one) for one in sorted(stops, key=len, reverse=True)))


def stop_of_answer(answer: str, message: Message, stops: re.Pattern[str]) -> re.Match[str] | None:
    """The first stop token of an answer, which is behind all that it says and ends it.

    Args:
        answer: The text behind the prompt.
        message: What it says.
        stops: As of ``stop_pattern``.

    Returns:
        The token's text and place; None if there is none.

    Raises:
        UnusableRowError: The message itself holds a stop token, the template puts one before the
            message's end, or it leaves out or changes what the message says.
    """
    for what, text in (("text", message.content), ("reasoning", message.reasoning)):
        if (held := stops.search(text)) is not None:
            raise UnusableRowError(
                f"the answer's {what} holds {held[0]!r}, which ends a turn: the model would learn "
                "to stop in the middle"
            )
    stop = stops.search(answer)
    said = answer if stop is None else answer[: stop.start()]
    lacking = lacking_answer(message, said)
    if lacking is None:
        return stop
    if stop is not None and lacking_answer(message, answer) is None:
        raise UnusableRowError(
            f"the chat template puts {stop[0]!r}, which ends a turn, before the end of what the "
            "answer says: the model would learn to stop in the middle; choose another "
            "model.chat_template"
        )
    raise UnusableRowError(lacking)


def lacking_answer(message: Message, text: str) -> str | None:
    """Why a text does not train what an assistant's message says; None: it does."""
    own = thought(message)
    if message.content.strip() not in text:
        if own.content not in text:
            return _changed("the answer")
        if own.reasoning == message.reasoning.strip() or own.reasoning not in text:
            return _dropped("the thinking in the answer's text")
    if message.reasoning and own.reasoning not in text:
        return _dropped("reasoning_content")
    if (call := lacking_call(message, text)) is not None:
        return _dropped(f"tool_calls ({call})")
    return None


def _dropped(what: str) -> str:
    return (
        f"the chat template leaves out {what}, so that what is trained would not be the data; "
        "choose another model.chat_template, or leave it out of the data"
    )


def _changed(what: str) -> str:
    return (
        f"the chat template does not render {what} as it stands, so other text than the data's "
        "would be trained; choose another model.chat_template"
    )


def _has_leaves(value: Any, text: str) -> bool:
    return all(any(form in text for form in forms) for forms in _leaves(value))


def _leaves(value: Any) -> Iterator[tuple[str, ...]]:
    """Of every key and leaf of a JSON value: how a template may write it."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield (str(key),)
            yield from _leaves(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    elif isinstance(value, str):
        yield (
            value.strip(),
            json.dumps(value, ensure_ascii=False)[1:-1].strip(),
            json.dumps(value)[1:-1].strip(),
        )
    else:
        yield (json.dumps(value), str(value))
