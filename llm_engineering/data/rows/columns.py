"""Columns of a flat table under other names: ``data.sources[].columns`` says which is which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from llm_engineering.configuration.data import Column
from llm_engineering.data.rows.text import holds_nothing
from llm_engineering.data.rows.unread import Unread, shown_name
from llm_engineering.data.rows.unusable import UnusableRowError

_PROMPTS = ("question", "query", "problem", "input", "inputs", "instruction", "article")
_PROMPTS_LAST = ("input_text", "document", "dialogue", "source", "user", "human", "prompt")
_ANSWERS = ("answer", "response", "solution", "output", "outputs", "completion", "summary")
_ANSWERS_LAST = (
    "output_text",
    "target",
    "targets",
    "generation",
    "highlights",
    "assistant",
    "gpt",
    "answers",
)
PROMPT_NAMES: Final = _PROMPTS + _PROMPTS_LAST
ANSWER_NAMES: Final = _ANSWERS + _ANSWERS_LAST


def map_columns(
    values: Mapping[str, object], columns: Mapping[Column, str], unread: Unread
) -> Mapping[str, object]:
    """The row with its columns under the names that the forms know.

    Args:
        values: A row as it was read.
        columns: The row's own name of each of ours, e.g. ``{"prompt": "question"}``.
        unread: Receives a column whose name another now has.

    Raises:
        UnusableRowError: The row has no such column.
    """
    if not columns:
        return values
    missing = [theirs for theirs in columns.values() if theirs not in values]
    if missing:
        raise UnusableRowError(
            f"has no column {', '.join(map(shown_name, missing))}, which the source's columns name; "
            f"it has {named(values)}"
        )
    taken = set(columns.values())
    others = {name: value for name, value in values.items() if name not in taken}
    for ours in columns:
        if not holds_nothing(others.get(ours)):
            unread.add(f"column {shown_name(ours)}")
    return others | {ours: values[theirs] for ours, theirs in columns.items()}


def proposal(values: Mapping[str, object]) -> str | None:
    """The mapping to try where a row is of no form, as YAML: which column asks, which answers."""
    found = proposed_columns(values)
    if found is None:
        return None
    return f"{{prompt: {found['prompt']}, completion: {found['completion']}}}"


def proposed_columns(values: Mapping[str, object]) -> dict[Column, str] | None:
    """The same as ``data.sources[].columns``; None: no column asks, or none answers."""
    given = {
        name.lower(): name
        for name, value in values.items()
        if isinstance(name, str) and name.isprintable() and _says_something(value)
    }
    prompt = next((given[name] for name in PROMPT_NAMES if name in given), None)
    answer = next(
        (given[name] for name in ANSWER_NAMES if name in given and given[name] != prompt), None
    )
    if prompt is None or answer is None:
        return None
    return {"prompt": prompt, "completion": answer}


def _says_something(value: object) -> bool:
    """Whether a column may be a text or a list of messages."""
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    )


def named(values: Mapping[str, object], most: int = 12) -> str:
    """The first columns, as text that is safe to print."""
    names = list(map(shown_name, values))
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])]) or "(none)"
