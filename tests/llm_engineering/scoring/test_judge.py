"""Tests of ``llm_engineering.scoring.judge``, by OpenAI's own client against a stand-in endpoint."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judge_server import KEY, JudgeServer

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.scoring.answers import Score
from llm_engineering.scoring.judge import judged, read_verdict
from llm_engineering.scoring.judge_endpoint import JudgeEndpoint

Ask = Callable[..., Score]


@pytest.fixture
def ask(judge_server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Judge rows by the stand-in, with a cache of this test's own."""
    monkeypatch.setenv("A_JUDGES_KEY", KEY)

    def go(rows: list[Any], **judge: Any) -> Score:
        values = {
            "endpoint": judge_server.endpoint,
            "model": "a-judge",
            "key_variable": "A_JUDGES_KEY",
            "timeout_s": 1.0,
            **judge,
        }
        settings = AnswersSettings.model_validate({"scorers": ["judge"], "judge": values})
        assert settings.judge is not None
        endpoint = JudgeEndpoint(settings.judge, tmp_path / "replies")
        return judged(rows, settings.scorers[0], settings, endpoint)

    return go


def test_the_better_answer_wins_in_both_orders(
    ask: Ask, make_row: Any, judge_server: JudgeServer
) -> None:
    rows = [
        make_row("bad", "much better", number=1),
        make_row("much better", "bad", number=2),
        make_row("same", "same", number=3),
        make_row("four", "five", number=4),
    ]
    score = ask(rows)
    assert score.after == [1.0, 0.0, 0.5, 0.5]
    assert score.before == [0.0, 1.0, 0.5, 0.5]
    assert score.difference is not None
    assert score.difference.mean == 0.0
    assert len(judge_server.requests) == 6  # equal answers are asked of nobody
    assert "1 of 4 rows have equal answers" in score.note
    assert judge_server.requests[0]["temperature"] == 0
    assert judge_server.requests[0]["model"] == "a-judge"


def test_a_judge_that_always_takes_the_first_answer_decides_nothing(
    ask: Ask, make_row: Any, judge_server: JudgeServer
) -> None:
    judge_server.prefer = lambda first, second: "A"
    score = ask([make_row("a", "bb", number=n) for n in range(3)])
    assert score.after == [0.5, 0.5, 0.5]
    assert "first answer won 6 and the second 0 of 6 comparisons" in score.note
    assert "in 3 of 3 rows the order alone decided" in score.note


def test_it_is_asked_again_after_429_500_and_a_time_out(
    ask: Ask, make_row: Any, judge_server: JudgeServer
) -> None:
    judge_server.faults = ["429", "500", "slow"]
    judge_server.retry_after = "0.7"
    score = ask([make_row("a", "bb")], timeout_s=0.5)
    assert score.after == [1.0]
    assert len(judge_server.requests) == 5
    waited = judge_server.times[1] - judge_server.times[0]
    assert waited >= 0.7, "Retry-After was not heeded"
    assert score.note.startswith("5 requests")


def test_an_endpoint_that_stays_down_leaves_rows_without_a_score(
    ask: Ask, make_row: Any, judge_server: JudgeServer, caplog: pytest.LogCaptureFixture
) -> None:
    judge_server.faults = ["500"] * 2
    score = ask([make_row("a", "bb", number=1), make_row("a", "bb", number=2)], retries=1)
    assert score.after == [None, 1.0]
    assert score.difference is not None
    assert score.difference.rows == 1
    assert "1 of 2 rows have no verdict: the endpoint failed 2 times (500" in score.note
    assert "held_out.jsonl:1 has no verdict" in caplog.text


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("nonsense", "names no winner"),
        ("no choices", "is no chat completion"),
        ("no text", "has no text"),
        ("not json", "no"),
    ],
)
def test_a_reply_that_is_none_is_no_verdict(
    ask: Ask, make_row: Any, judge_server: JudgeServer, fault: Any, why: str
) -> None:
    judge_server.faults = [fault] * 6
    score = ask([make_row("a", "bb")], retries=0)
    assert score.after == [None]
    assert score.difference is None
    assert why in score.note


def test_nonsense_is_asked_for_once_more(
    ask: Ask, make_row: Any, judge_server: JudgeServer
) -> None:
    judge_server.faults = ["nonsense"]
    assert ask([make_row("a", "bb")]).after == [1.0]
    assert len(judge_server.requests) == 3


def test_no_more_is_asked_than_the_budget_allows(
    ask: Ask, make_row: Any, judge_server: JudgeServer
) -> None:
    rows = [make_row("a", "bb", number=number) for number in range(4)]
    judge_server.faults = ["500"]  # repeated requests count too
    score = ask(rows, max_calls=5)
    assert score.after == [1.0, 1.0, None, None]
    assert len(judge_server.times) == 5
    assert "max_calls (5) is spent" in score.note
    judge_server.times.clear()
    judge_server.faults = ["500"] * 9
    ask([make_row("a", "ccc")], max_calls=2, retries=9)
    assert len(judge_server.times) == 2


def test_what_was_judged_is_not_asked_again(
    ask: Ask, make_row: Any, judge_server: JudgeServer, tmp_path: Path
) -> None:
    rows = [make_row("a", "bb", number=number) for number in range(2)]
    first = ask(rows)
    asked = len(judge_server.requests)
    second = ask(rows)
    assert len(judge_server.requests) == asked == 4
    assert second.after == first.after
    assert second.note.startswith("0 requests, 4 replies from the cache")
    ask(rows, criterion="Which is politer?")
    assert len(judge_server.requests) == 8


def test_a_key_that_is_refused_is_told_once_and_never_shown(
    ask: Ask,
    make_row: Any,
    judge_server: JudgeServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    secret = "a-wrong-key-987654321"
    monkeypatch.setenv("A_JUDGES_KEY", secret)
    caplog.set_level(logging.DEBUG)
    score = ask([make_row("a", "bb", number=number) for number in range(3)])
    assert score.after == [None] * 3
    assert len(judge_server.times) == 1, "a refusal was asked again"
    assert "the endpoint refuses (401" in score.note
    kept = "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    for text in (score.model_dump_json(), caplog.text, kept):
        assert secret not in text


def test_neither_record_nor_cache_holds_the_key(
    ask: Ask, make_row: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    score = ask([make_row("a", "bb")])
    kept = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(kept) == 2
    for text in (score.model_dump_json(), caplog.text, *kept):
        assert KEY not in text
    assert set(json.loads(kept[0])) == {"reply"}


def test_an_endpoint_without_keys_is_asked_without_one(
    ask: Ask, make_row: Any, judge_server: JudgeServer
) -> None:
    judge_server.key = None
    assert ask([make_row("a", "bb")], key_variable=None).after == [1.0]


def test_an_endpoint_that_is_not_there_is_told(ask: Ask, make_row: Any) -> None:
    began = time.monotonic()
    score = ask([make_row("a", "bb")], endpoint="http://127.0.0.1:9/v1", retries=1)
    assert score.after == [None]
    assert "no reply after 2 attempts" in score.note
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"winner": "A"}', "A"),
        ('```json\n{"winner": "b"}\n```', "B"),
        ('Thinking ... {"winner": "tie"}', "tie"),
        ("B", "B"),
        ("**A**", "A"),
        ("[[B]]", "B"),
        ("Answer A", "A"),
        ('{"winner": "A"} or {"winner": "B"}', None),
        ("A is better than B", None),
        ("C", None),
        ("", None),
    ],
)
def test_reading_a_verdict(reply: str, verdict: str | None) -> None:
    assert read_verdict(reply) == verdict
