"""The forms that a row comes in, told apart by their columns."""

from __future__ import annotations

from collections.abc import Mapping

from llm_engineering.configuration.data import RowForm
from llm_engineering.data.rows.unusable import UnusableRowError

RESPONSE_COLUMNS = ("response", "output", "answer")
SAID_AS = "messages, conversations, instruction with response (or output), prompt with completion, or text"
PREFERENCE_COLUMNS = ("chosen", "rejected")
_SHOWN = 12  # columns
_SIGNS: dict[str, RowForm] = {
    "messages": "messages",
    "conversations": "sharegpt",
    "instruction": "alpaca",
    "completion": "prompt_completion",
    "text": "text",
}


def form_of(values: Mapping[str, object]) -> RowForm:
    """Tell the form of a row by its columns; a column that holds null counts as absent.

    ``text`` beside the columns of another form is that form rendered, as in Alpaca's own file,
    and does not count.

    Raises:
        UnusableRowError: The columns are those of no form, of two, or of preference data.
    """
    given = {name for name, value in values.items() if value is not None}
    if given.issuperset(PREFERENCE_COLUMNS):
        raise UnusableRowError(
            "has chosen and rejected answers: set train.objective to dpo, orpo or kto to learn "
            "from them"
        )
    found: list[RowForm] = []
    if "instruction" in given and given.intersection(RESPONSE_COLUMNS):
        found.append("alpaca")
    if {"prompt", "completion"} <= given:
        found.append("prompt_completion")
    if "messages" in given:
        found.append("messages")
    if "conversations" in given:
        found.append("sharegpt")
    if len(found) > 1:
        raise UnusableRowError(
            f"has columns of two forms, {found[0]} and {found[1]}; say which with the source's "
            f"form: {found[0]}"
        )
    if found:
        return found[0]
    # Not complete, but it can only be meant so: reading it says what is wrong.
    for columns in (given, set(values)):
        for column, form in _SIGNS.items():
            if column in columns:
                return form
    raise UnusableRowError(f"has columns {_named(values)}; expected {SAID_AS}")


def _named(values: Mapping[str, object]) -> str:
    """The first columns, as text that is safe to print."""
    names = [name if name.isprintable() else repr(name) for name in map(str, values)]
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])]) or "(none)"
