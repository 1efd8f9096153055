"""The forms that a row comes in, told apart by their columns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from llm_engineering.configuration.data import RowForm
from llm_engineering.data.rows.columns import named, proposal
from llm_engineering.data.rows.text import holds_nothing
from llm_engineering.data.rows.unusable import UnusableRowError

RESPONSE_COLUMNS = ("response", "output", "answer")
PREFERRED = {
    "chosen": "rejected",
    "chosen_response": "rejected_response",
    "chosen_conversations": "rejected_conversations",
    "preferred_output": "non_preferred_output",
}
"""Column of the better answer, and that of the worse one."""
WORSE = ("rejected_response", "rejected_messages")
"""Column of the worse answer beside a whole conversation, whose last message is the better."""
LISTED = ("chosen", *RESPONSE_COLUMNS)
"""Columns that may be a list of both answers."""
_PAIRED = frozenset((*PREFERRED, *WORSE))
_RESPONSES = frozenset(RESPONSE_COLUMNS)
SAID_AS = "messages, conversations, instruction with response (or output), prompt with completion, or text"
_SIGNS: dict[str, RowForm] = {
    "messages": "messages",
    "conversations": "sharegpt",
    "conversation": "sharegpt",
    "instruction": "alpaca",
    "completion": "prompt_completion",
    "text": "text",
}


def form_of(values: Mapping[str, object]) -> RowForm:
    """Tell the form of a row by its columns; a column that holds null counts as absent.

    ``text`` beside the columns of another form is that form rendered, as in Alpaca's own file,
    and does not count. A prompt with its completion is a chat turn: that it is plain text, which
    the completion goes on with, no column tells (``form: continuation``).

    Raises:
        UnusableRowError: The columns are those of no form, of two, or of preference data.
    """
    given = frozenset([name for name, value in values.items() if value is not None])
    if is_preference(values):
        raise UnusableRowError(
            "has chosen and rejected answers: set train.objective to dpo, orpo or kto to learn "
            "from them"
        )
    found = _complete(given, "instruction" in values)
    if "sharegpt" not in found and isinstance(values.get("conversation"), list):
        found = (*found, "sharegpt")
    if len(found) > 1:
        raise UnusableRowError(
            f"has columns of two forms, {found[0]} and {found[1]}; say which with the source's "
            f"form: {found[0]}"
        )
    if found:
        return found[0]
    mapping = proposal(values)
    # Not complete, but it can only be meant so: reading it says what is wrong.
    for columns in (given, set(values)):
        for column, form in _SIGNS.items():
            if column in columns and (mapping is None or column == "text"):
                return form
    advice = "" if mapping is None else f"; try the source's columns: {mapping}"
    raise UnusableRowError(f"has columns {named(values)}; expected {SAID_AS}{advice}")


@lru_cache(maxsize=256)
def _complete(given: frozenset[str], instruction: bool) -> tuple[RowForm, ...]:
    """The forms whose columns are all there; ``instruction`` may be there and hold null."""
    found: list[RowForm] = []
    if instruction and given & {"instruction", "input", "context"} and given & _RESPONSES:
        found.append("alpaca")
    if {"prompt", "completion"} <= given:
        found.append("prompt_completion")
    if "messages" in given:
        found.append("messages")
    if "conversations" in given:
        found.append("sharegpt")
    return tuple(found)


def is_preference(values: Mapping[str, object]) -> bool:
    """Whether a row has a better and a worse answer."""
    for name in LISTED:
        if name in values and are_two_texts(values[name]):
            return True
    if _PAIRED.isdisjoint(values):
        return False
    said = {name for name, value in values.items() if not holds_nothing(value)}
    return not said.isdisjoint(WORSE) or any(
        {better, worse} <= said for better, worse in PREFERRED.items()
    )


def are_two_texts(value: object) -> bool:
    """Whether a column is a better text and a worse one."""
    return isinstance(value, list) and len(value) == 2 and all(isinstance(x, str) for x in value)
