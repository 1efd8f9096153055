"""A new objective is one file: this one, which the pipeline trains, judges and reports by."""

from __future__ import annotations

from typing import ClassVar

import pytest

from llm_engineering.model import live
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.objectives.dpo import Dpo
from llm_engineering.objectives.objective import Answers, Ingredients, Judgement, Objective
from llm_engineering.objectives.preference_trainer import pair_trainer
from llm_engineering.objectives.reference_model import rewards_against_reference

pytestmark = pytest.mark.slow


class Hinge(Objective):
    """``max(0, 1 - margin)`` of two rewards (SLiC-HF, arXiv 2305.10425)."""

    name: ClassVar[str] = "hinge"
    title: ClassVar[str] = "which of two answers is better, by a hinge"
    learning_rate: ClassVar[float] = 1e-3
    learns_from = "pairs"
    sequences_per_row: ClassVar[int] = 2
    unit: ClassVar[str] = "per pair"

    def make_trainer(self, ingredients: Ingredients):
        return pair_trainer(self, ingredients)

    def judge(self, answers: Answers, beta: float) -> Judgement:
        rewards = rewards_against_reference(answers, beta)
        return Judgement((1.0 - rewards["chosen"] + rewards["rejected"]).clamp(min=0), rewards)


@pytest.fixture
def hinge(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "hinge", Hinge())


def test_it_is_configured_trained_and_judged(hinge, run, preference_config, tmp_path):
    config = preference_config("hinge", {"train.beta": 0.5})
    assert config.train.objective == "hinge"
    _, _, _, record = run(config, tmp_path)
    assert record.objective == "hinge"
    assert record.points[0].loss == pytest.approx(1.0, abs=1e-4), "the margin is zero at first"
    assert record.before.loss == 1.0
    assert record.before.unit == "per pair"
    assert record.after.loss < 0.9
    assert record.after.rewards.margin > 0.1
    live.release()


def test_its_default_rate_is_its_own(hinge, preference_config):
    config = preference_config("hinge", {})
    assert type(config.train)(objective="hinge").learning_rate == 1e-3


def test_unknown_it_is_refused_by_name(preference_config):
    with pytest.raises(ValueError, match="Input should be 'sft', 'dpo', 'orpo' or 'kto'"):
        preference_config("hinge")


def test_every_objective_says_all_that_is_asked_of_it():
    for name, objective in OBJECTIVES.items():
        assert objective.name == name
        assert objective.title
        assert 0 < objective.learning_rate < 1e-3
        assert objective.is_preference == bool(objective.answers)
    assert isinstance(OBJECTIVES["dpo"], Dpo)
