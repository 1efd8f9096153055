"""Tests of ``llm_engineering.scoring.scorers``: each scorer's number for answers that it was made for."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.configuration.answers import ScorerSettings
from llm_engineering.scoring.scorers import same_json, scorer

OBJECT = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


def score(settings: Any, row: Any) -> float:
    return scorer(ScorerSettings.model_validate(settings), "key")(row.after, row)


@pytest.mark.parametrize(
    ("settings", "answer", "reference", "expected"),
    [
        ("exact", " Paris\n", "Paris", 1.0),
        ("exact", "paris", "Paris", 0.0),
        ({"exact": None, "ignore_case": True}, "STRASSE", "straße", 1.0),
        ("exact", "Paris.", "Paris", 0.0),
        ("contains", "It is Paris.", "Paris", 1.0),
        ("contains", "It is paris.", "Paris", 0.0),
        ({"contains": None, "ignore_case": True}, "It is paris.", "Paris", 1.0),
        ({"regex": r"^\d+$"}, "42", "", 1.0),
        ({"regex": r"\d"}, "forty-two", "", 0.0),
        ("json", '{"a": [1, 2]}', "", 1.0),
        ("json", 'Here: {"a": 1}', "", 0.0),
        ("json", "NaN", "", 0.0),
        ("json", "[" * 100_000, "", 0.0),
        ("json", "", "", 0.0),
        ({"json": OBJECT}, '{"name": "x"}', "", 1.0),
        ({"json": OBJECT}, '{"name": 3}', "", 0.0),
        ({"json": OBJECT}, "[]", "", 0.0),
        ("rouge_l", "the cat sat", "the cat sat", 1.0),
    ],
)
def test_by_text(
    settings: Any, answer: str, reference: str, expected: float, make_row: Any
) -> None:
    assert score(settings, make_row("", answer, reference)) == expected


def test_chrf_is_sacrebleus_as_a_share(make_row: Any) -> None:
    # sacrebleu 2.6.0: sentence_chrf("the cat sat", ["the cat sat on the mat"]).score = 49.5935
    row = make_row("", "the cat sat", "the cat sat on the mat")
    assert score("chrf", row) == pytest.approx(CHRF, abs=1e-6)
    assert score("chrf", make_row("", "same", "same")) == pytest.approx(1.0)


CHRF = 0.4959348


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([{"name": "weather", "arguments": {"days": 2, "city": "Oslo"}}], 1.0),
        ([{"name": "weather", "arguments": {"city": "Oslo", "days": 2.0}}], 1.0),
        ([{"name": "weather", "arguments": {"city": "Oslo", "days": "2"}}], 0.0),
        ([{"name": "forecast", "arguments": {"city": "Oslo", "days": 2}}], 0.0),
        ([{"name": "weather", "arguments": {"city": "Oslo"}}], 0.0),
        ([], 0.0),
        (None, 0.0),
    ],
)
def test_a_tool_call_has_the_same_name_and_arguments(
    calls: Any, expected: float, make_row: Any
) -> None:
    wanted = [{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}]
    row = make_row("", "", after_calls=calls, reference_calls=wanted)
    assert score("tool_call", row) == expected


def test_where_no_call_is_right_a_call_is_wrong(make_row: Any) -> None:
    call = [{"name": "weather", "arguments": {}}]
    assert score("tool_call", make_row("", "Hi", after_calls=[], reference_calls=[])) == 1.0
    assert score("tool_call", make_row("", "", after_calls=call, reference_calls=[])) == 0.0


def test_json_values_are_equal_as_json_has_it() -> None:
    assert same_json({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]})
    assert not same_json(True, 1)
    assert not same_json([0], [False])
    assert not same_json({"a": 1}, {"a": 1, "b": 2})
    assert not same_json([1, 2], [2, 1])
