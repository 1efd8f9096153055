"""Which version a run's answers stand beside, and what is said where it has none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.errors import RegistryError
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.model.finetuning.record import ProductionMetrics, TrainingRecord
from llm_engineering.registry import production_answers
from llm_engineering.registry.decision import Decision
from llm_engineering.registry.versions import BASE_WEIGHTS_DIGEST, weights_digest
from llm_engineering.reporting.production_answers import ProductionAnswers

METRICS = HeldOutMetrics(loss=1.0, token_accuracy=0.5, tokens=1, rows=1)
LORA: Any = SimpleNamespace(model=SimpleNamespace(weight_digests={"a": "b"}))


def evaluation(after: str) -> Evaluation:
    sample = Sample(
        origin="rows.jsonl:1",
        prompt="Q",
        reference="R",
        before="base",
        after=after,
        key="k",
        max_new_tokens=8,
    )
    return Evaluation(before=METRICS, after=METRICS, samples=[sample])


class Registry:
    """One version in production, named ``current``, and one that was before, ``former``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.digest = weights_digest(LORA.model)
        self.stored: Evaluation | None = evaluation("theirs")
        self.current: str | None = "current"
        for name in ("find_version", "production_version", "artifact"):
            monkeypatch.setattr(production_answers, name, getattr(self, name))

    def version(self, name: str) -> Any:
        figures = {BASE_WEIGHTS_DIGEST: self.digest, "base_model": "another/model"}
        return SimpleNamespace(name=name, run_metadata=figures)

    def find_version(self, model: str, name: str) -> Any:
        if name != "former":
            raise RegistryError(f"model {model} has no version {name}")
        return self.version(name)

    def production_version(self, model: str) -> Any:
        return self.version(self.current) if self.current else None

    def artifact(self, version: Any, name: str) -> Any:
        assert name == "evaluation"
        if self.stored is None:
            raise RegistryError(f"the evaluation of {version.name} is not in the store")
        return self.stored


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    return Registry(monkeypatch)


def found(
    production: str | None, *, version: str = "mine", record: TrainingRecord | None = None
) -> ProductionAnswers | None:
    decision = Decision(
        model="m", version=version, promoted=True, reason="so", production=production
    )
    return production_answers.answers_of_production(
        decision, LORA, record or TrainingRecord(), evaluation("ours")
    )


def test_it_is_the_version_that_the_gate_compared_with(registry: Registry) -> None:
    registry.current = "mine"  # promoted meanwhile
    answers = found("former")
    assert answers == ProductionAnswers("former", ["theirs"], [], [])


def test_without_a_gate_it_is_what_is_in_production(registry: Registry) -> None:
    answers = found(None)
    assert answers is not None
    assert answers.version == "current"


def test_there_is_none_beside_the_first_version(registry: Registry) -> None:
    assert found(None, version="current") is None
    registry.current = None
    assert found(None) is None


def test_what_is_missing_is_said_and_what_was_measured_stands_in(registry: Registry) -> None:
    registry.stored = None
    answers = found("former")
    assert answers is not None
    assert answers.samples == [None]
    assert answers.notes == [
        "It has no answer to any of the 1 sample prompts: the evaluation of former is not in the "
        "store."
    ]
    gone = found("pruned")
    assert gone is not None
    assert (gone.version, gone.samples) == ("pruned", [None])
    assert "model m has no version pruned" in gone.notes[0]
    made = ProductionMetrics(version="former", metrics=METRICS, samples=["made"])
    beside = found("former", record=TrainingRecord(production=made))
    assert beside == ProductionAnswers("former", ["made"], [], [])


def test_another_base_model_is_said(registry: Registry) -> None:
    registry.digest = "another"
    answers = found("former")
    assert answers is not None
    assert answers.samples == ["theirs"]
    assert answers.notes == ["It adapts another base model (another/model)."]
