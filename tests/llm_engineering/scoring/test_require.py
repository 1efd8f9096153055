"""Tests of ``llm_engineering.scoring.require``: what is missing is said before anything is read."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.errors import ConfigError, SetupError
from llm_engineering.scoring import require
from llm_engineering.scoring.require import require_scorers, scorer_digests

JUDGE = {"endpoint": "http://127.0.0.1:1/v1", "model": "m", "key_variable": "A_JUDGES_KEY"}


def settings(*scorers: Any, **others: Any) -> AnswersSettings:
    return AnswersSettings.model_validate({"scorers": scorers, **others})


def test_a_judge_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_JUDGES_KEY", raising=False)
    asked = settings("judge", judge=JUDGE)
    with pytest.raises(ConfigError, match=r"judge.key_variable: A_JUDGES_KEY is not set"):
        require_scorers(asked)
    monkeypatch.setenv("A_JUDGES_KEY", "x")
    require_scorers(asked)
    monkeypatch.delenv("A_JUDGES_KEY")
    require_scorers(settings("judge", judge=JUDGE | {"key_variable": None}))


def test_a_function_that_cannot_be_imported() -> None:
    asked = settings("exact", {"python": "no_such_module:score"})
    with pytest.raises(ConfigError, match=r"scorers.1: no_such_module:score cannot be imported"):
        require_scorers(asked)


@pytest.mark.parametrize("kind", ["chrf", "judge"])
def test_a_package_that_is_not_installed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("A_JUDGES_KEY", "x")
    asked = settings(kind, judge=JUDGE if kind == "judge" else None)
    with pytest.raises(SetupError, match=r"scorers.0: .* run `poetry install --with scoring`"):
        require_scorers(asked)
    require_scorers(settings("rouge_l"))


def test_nothing_is_required_of_a_run_without_answers() -> None:
    require_scorers(None)
    assert scorer_digests(None) == []
    assert require.is_installed("exact")
