"""Tests of ``llm_engineering.registry.scores``, and of the check ``better_at`` that asks it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.configuration.registry import RegistrySettings
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.registry import promotion
from llm_engineering.registry.checks import Production, run_checks
from llm_engineering.registry.promotion import promote
from llm_engineering.registry.scores import BASE, compare_scores
from llm_engineering.scoring.answers import Answer, AnsweredRow, Answers
from llm_engineering.scoring.score import scored

ROWS = 12


def settings(*scorers: Any, **others: Any) -> AnswersSettings:
    return AnswersSettings.model_validate({"scorers": scorers or ("exact",), **others})


def answers(
    right_after: int,
    *,
    right_before: int = 0,
    scorers: Any = ("exact",),
    first: int = 0,
    **made: Any,
) -> Answers:
    """``ROWS`` rows, of which so many are answered right, by the adapter and by the base model."""

    def said(text: str) -> Answer:
        return Answer(text=text, tokens=1, is_cut=False)

    rows = [
        AnsweredRow(
            origin=f"rows.jsonl:{n}",
            key=f"row {n}",
            prompt="?",
            reference="right",
            before=said("right" if n - first < right_before else "wrong"),
            after=said("right" if n - first < right_after else "wrong"),
        )
        for n in range(first, first + ROWS)
    ]
    made = settings(*scorers).generation | made
    return scored(Answers(generation=made, rows=rows), settings(*scorers))


def outcome(ours: Answers | None, production: Production | None) -> tuple[bool, str]:
    flat = HeldOutMetrics(loss=1.0, token_accuracy=0.5, tokens=1, rows=1)
    found = Evaluation(before=flat, after=flat, samples=[], answers=ours)
    candidate: Any = SimpleNamespace(evaluation=found, production=production)
    rules = RegistrySettings.model_validate({"checks": [{"better_at": "exact"}]})
    (check,) = run_checks(candidate, rules)
    assert check.name == "better_at exact"
    return check.passed, check.detail


def production(theirs: Answers | None) -> Production:
    return Production("first", None, answers=theirs)


def test_the_first_version_must_beat_the_base_model() -> None:
    assert outcome(answers(9, right_before=1), None) == (
        True,
        "exact 0.750, +0.667 against 0.083 of the base model; at 95% confidence at least +0.417 "
        "(12 rows)",
    )
    passed, detail = outcome(answers(3, right_before=3), None)
    assert not passed
    assert "at least +0.000" in detail


def test_a_later_one_must_beat_production_on_the_same_rows() -> None:
    theirs = production(answers(6))
    passed, detail = outcome(answers(12), theirs)
    assert passed
    assert "+0.500 against 0.500 of first; " in detail
    passed, detail = outcome(answers(6), theirs)
    assert not passed, "it is better than base, and no better than production"
    passed, detail = outcome(answers(3), theirs)
    assert not passed
    assert "-0.250 against 0.500 of first" in detail


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (None, "first was saved without answers"),
        (answers(12, max_new_tokens=7), "first's answers were made by other settings"),
        (answers(12, temperature=0.5), "first's answers were made by other settings"),
        (answers(12, first=500), "first answered none of these rows"),
    ],
)
def test_where_production_cannot_be_compared_it_is_the_base_model_and_said(
    theirs: Answers | None, why: str
) -> None:
    passed, detail = outcome(answers(9), production(theirs))
    assert passed
    assert f"of the base model ({why})" in detail


def test_rows_that_both_answered_are_compared_alone() -> None:
    pairs = compare_scores("exact", answers(12), answers(12, first=4), "first")
    assert (pairs.other, len(pairs.ours)) == ("first", 8)
    passed, detail = outcome(answers(12), production(answers(12, first=5)))
    assert not passed
    assert detail.startswith("7 rows with a score of exact are too few")


def test_productions_answers_are_scored_again_by_another_scorer() -> None:
    theirs = answers(6, scorers=("contains",))
    pairs = compare_scores("exact", answers(12), theirs, "first")
    assert pairs.other == "first"
    assert sum(pairs.theirs) == 6


def test_a_judge_is_not_asked_again() -> None:
    ours, theirs = answers(12), answers(6)
    for one, model in ((ours, "new"), (theirs, "old")):
        one.scores[0] = one.scores[0].model_copy(
            update={"settings": {"scorer": "judge", "name": "exact", "judge": model}}
        )
    pairs = compare_scores("exact", ours, theirs, "first")
    assert (pairs.other, pairs.why_base) == (BASE, "first's answers have no such score")
    theirs.scores[0] = theirs.scores[0].model_copy(update={"settings": ours.scores[0].settings})
    assert compare_scores("exact", ours, theirs, "first").other == "first"


def test_a_score_that_was_not_measured_fails() -> None:
    unscored = answers(9).model_copy(update={"scores": []})
    for ours in (None, unscored):
        passed, detail = outcome(ours, None)
        assert not passed
        assert "exact was not measured" in detail


# --- what the gate says of it --------------------------------------------------------------------


@pytest.fixture
def decide(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Decide on a version with answers, where a production version has those (or none)."""

    def go(ours: Answers, theirs: Answers | None) -> Any:
        flat = HeldOutMetrics(loss=1.0, token_accuracy=0.5, tokens=1, rows=1)
        stored = Evaluation(before=flat, after=flat, samples=[], answers=theirs)
        current = SimpleNamespace(name="first", run_metadata={})
        monkeypatch.setattr(promotion, "production_version", lambda model: current)
        monkeypatch.setattr(promotion, "rolled_back_versions", lambda model: [])
        monkeypatch.setattr(promotion, "artifact", lambda version, name: stored)
        monkeypatch.setattr(promotion, "_production", lambda *asked: Production("first", None))
        monkeypatch.setattr(promotion, "promote_if_unchallenged", lambda *asked, **more: True)
        rules = RegistrySettings.model_validate({"checks": [{"better_at": "exact"}]})
        made = Evaluation(before=flat, after=flat, samples=[], answers=ours)
        nothing: Any = SimpleNamespace(summary=None)
        return promote(
            "model", "second", rules, nothing, dataset=nothing, lora=nothing, adapter=nothing,
            record=nothing, evaluation=made, parity=[],
        )  # fmt: skip

    return go


def test_production_is_promoted_by_the_task(decide: Any) -> None:
    decision = decide(answers(12), answers(6))
    assert decision.promoted
    assert decision.reason == "better than first, and passed all 1 checks"
    assert not decide(answers(6), answers(6)).promoted


def test_a_version_that_was_held_against_the_base_model_alone_is_not_called_better(
    decide: Any,
) -> None:
    decision = decide(answers(12), None)
    assert decision.promoted
    assert decision.reason == "passed all 1 checks, none of which compares it with first"


def test_a_configuration_says_it_by_name(tmp_path: Path) -> None:
    rules = RegistrySettings.model_validate({"checks": ["parity", {"better_at": "exact"}]})
    assert rules.scores == ["exact"]
    assert RegistrySettings.model_validate(rules.model_dump(mode="json")) == rules
