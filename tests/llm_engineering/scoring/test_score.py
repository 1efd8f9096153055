"""Tests of ``llm_engineering.scoring.score``: every scorer on every row, and the interval of the change."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.scoring.answers import Answers, Score
from llm_engineering.scoring.score import scored


def settings(*scorers: Any, **others: Any) -> AnswersSettings:
    return AnswersSettings.model_validate({"scorers": scorers, **others})


@pytest.fixture
def answers(make_row: Any) -> Answers:
    """Ten rows, of which the adapter answers eight exactly and the base model one."""
    rows = [
        make_row("right" if n == 0 else "wrong", "right" if n < 8 else "no", "right", number=n)
        for n in range(10)
    ]
    return Answers(generation=settings("exact").generation, rows=rows)


def test_both_answers_are_scored_and_compared(answers: Answers) -> None:
    found = scored(answers, settings("exact", {"regex": "^r"}))
    score = found.score("exact")
    assert score is not None
    assert score.difference is not None
    assert (score.difference.to_beat, score.difference.candidate) == (0.1, 0.8)
    assert 0.3 <= score.difference.low < 0.7 < score.difference.high <= 1.0
    assert found.figures["score_exact_before"] == 0.1
    assert found.figures["score_regex_change"] == pytest.approx(0.7)
    assert found.rows == answers.rows


def test_scores_are_replaced_by_those_that_are_configured_now(answers: Answers) -> None:
    first = scored(answers, settings("exact"))
    again = scored(first, settings("contains"))
    assert [one.name for one in again.scores] == ["contains"]


def test_where_only_a_training_is_what_needs_more_waits(
    answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wanted = settings("exact", {"python": "no_such_module:score"})
    found = scored(answers, wanted, elsewhere=True)
    assert [one.name for one in found.scores] == ["exact"]
    assert "score is scored where the run was started" in caplog.text


def test_rows_without_a_score_count_for_nothing() -> None:
    score = Score(name="a", settings={}, before=[None, 0.0, 0.5], after=[1.0, 1.0, None]).compared()
    assert score.difference is not None
    assert (score.difference.rows, score.difference.mean) == (1, 1.0)
    nothing = Score(name="a", settings={}, before=[None], after=[1.0]).compared()
    assert nothing.difference is None


def test_the_rows_that_moved_most_are_ten_at_most() -> None:
    score = Score(
        name="a",
        settings={},
        before=[0.5] * 30,
        after=[n / 30 for n in range(30)],
    )
    gained, lost = score.gained(), score.lost()
    assert [row for row, _ in gained] == list(range(29, 19, -1))
    assert [row for row, _ in lost] == list(range(10))
