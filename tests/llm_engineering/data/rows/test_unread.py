"""No key of a row vanishes: whatever is put into one, it is read, refused or told."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.preferences import to_preferences
from llm_engineering.data.rows.unread import count_unread
from llm_engineering.data.rows.unusable import UnusableRowError

CORPUS = Path(__file__).resolve().parents[3] / "corpus" / "rows"
WHOLE = ("tools", "functions", "arguments", "parameters")  # are kept to the last key
MARK = "7f3a"  # of a key or value that no reader can know


def good_rows() -> list[tuple[str, dict[str, Any]]]:
    """The rows of the corpus that are read, by the objective that reads them."""
    found = []
    for path in sorted(CORPUS.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            for objective in ("sft", "dpo", "kto"):
                try:
                    _, unread = read(row, objective)
                except UnusableRowError:
                    continue
                used = {key: row[key] for key in row if f"column {key}" not in unread}
                found.append((objective, used))
    return found


def read(row: dict[str, Any], objective: str) -> tuple[str, set[str]]:
    """What is kept of a row, as JSON, and the names of what is not."""
    unread: set[str] = set()
    if objective == "sft":
        kept: Any = to_conversation(row, None, unread).to_dict()
    else:
        kept = [one.to_dict() for one in to_preferences(row, objective, unread)]  # type: ignore[arg-type]
    return json.dumps(kept), unread


def objects(value: Any, whole: bool = False) -> list[tuple[dict[str, Any], bool]]:
    """All objects in a row, however deep, and whether they are part of what is kept whole."""
    if isinstance(value, list):
        return [one for item in value for one in objects(item, whole)]
    if isinstance(value, dict):
        inner = [one for key, item in value.items() for one in objects(item, whole or key in WHOLE)]
        return [(value, whole), *inner]
    return []


GOOD = good_rows()
values = st.one_of(
    st.just(MARK),
    st.integers(1, 9),
    st.booleans(),
    st.lists(st.just(MARK), min_size=1, max_size=2),
    st.dictionaries(st.just(MARK), st.just(MARK), min_size=1),
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(GOOD), st.integers(0, 10**6), values, st.text(max_size=3))
def test_a_key_that_is_put_anywhere_into_a_row_is_told_or_refused(
    found: tuple[str, dict[str, Any]], at: int, value: Any, name: str
) -> None:
    objective, row = found[0], copy.deepcopy(found[1])
    places = objects(row)
    place, whole = places[at % len(places)]
    key = f"{name}{MARK}"
    place[key] = value
    before, told_before = read(found[1], objective)

    try:
        kept, unread = read(row, objective)
    except UnusableRowError:
        return

    shown = key if key.isprintable() else repr(key)
    if whole:
        assert json.dumps(key) in kept
    else:
        assert kept == before
        (told,) = unread - told_before
        assert told.endswith(shown)


@pytest.mark.parametrize("empty", [None, "", [], {}])
def test_what_says_nothing_is_neither_told_nor_a_reason_to_refuse(empty: Any) -> None:
    for objective, row in GOOD:
        filled = copy.deepcopy(row)
        for place, whole in objects(filled):
            if not whole and "type" not in place and "name" not in place:
                place |= {f"x{MARK}": empty}
                place |= {key: empty for key in ("images", "audio") if key not in place}
        assert read(filled, objective) == read(row, objective)


@pytest.mark.parametrize("key", ["image", "images", "audios", "videos", "function_calls"])
def test_what_has_a_meaning_that_is_not_supported_is_refused_by_name(key: str) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]

    with pytest.raises(UnusableRowError, match=f"^has column {key}: "):
        to_conversation({"messages": messages, key: ["x"]})
    messages[0][key] = ["x"]
    with pytest.raises(UnusableRowError, match=rf"^has messages\[\]\.{key}: "):
        to_conversation({"messages": messages})


def test_names_without_end_are_counted_together() -> None:
    counts: Counter[str] = Counter()

    for number in range(250):
        count_unread(counts, {f"column {number}", "column meta"})

    assert counts["column meta"] == 250
    assert counts["other names"] == 250 - 99
    assert len(counts) == 101


keys = st.sampled_from(
    [
        *("messages", "conversations", "conversation", "prompt", "completion", "chosen"),
        *("rejected", "rejected_response", "instruction", "input", "output", "history", "tools"),
        *("system", "label", "text", "role", "from", "content", "value", "tool_calls", "weight"),
        *(
            "function_call",
            "function",
            "name",
            "arguments",
            "type",
            "reasoning",
            "preferred_output",
        ),
        *("non_preferred_output", "human", "assistant", "question", "context", "functions"),
    ]
)
leaves = st.sampled_from(
    [None, 1, 0.5, float("nan"), True, "", "a", "user", "assistant", "tool", "system", "gpt"]
    + ["function_call", "text", "[]", "[{}]", '{"name": "f"}', "{", "\ud800", b"x", (1, 2)]
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(keys, anything, max_size=5))
def test_whatever_a_row_is_it_is_read_or_refused_with_a_reason(row: dict[str, Any]) -> None:
    for objective in ("sft", "dpo", "kto"):
        try:
            kept, _ = read(row, objective)
        except UnusableRowError as reason:
            refused = str(reason)
        else:
            kept.encode()
            continue
        assert refused


def entries(value: Any) -> list[tuple[Any, Any]]:
    """All places in a row where a value stands: its list or object, and index or key."""
    if isinstance(value, list):
        here = [(value, index) for index in range(len(value))]
        return here + [one for item in value for one in entries(item)]
    if isinstance(value, dict):
        return [(value, key) for key in value] + [
            one for item in value.values() for one in entries(item)
        ]
    return []


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(GOOD), st.integers(0, 10**6), anything)
def test_a_row_with_one_value_spoilt_is_read_or_refused_with_a_reason(
    found: tuple[str, dict[str, Any]], at: int, value: Any
) -> None:
    objective, row = found[0], copy.deepcopy(found[1])
    places = entries(row)
    place, key = places[at % len(places)]
    place[key] = value

    try:
        kept, _ = read(row, objective)
    except UnusableRowError as reason:
        refused = str(reason)
    else:
        kept.encode()
        return
    assert refused


def test_a_text_that_stands_anywhere_in_a_row_is_kept_or_refused() -> None:
    for objective, row in GOOD:
        for number, (place, key) in enumerate(entries(row)):
            if not isinstance(place[key], str):
                continue
            marked = copy.deepcopy(row)
            inside, name = entries(marked)[number]
            inside[name] = MARK
            try:
                kept, _ = read(marked, objective)
            except UnusableRowError:
                continue
            assert MARK in kept, (objective, name, row)
