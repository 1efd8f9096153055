"""Production's answers to a run's rows, and why it has none to some."""

from __future__ import annotations

from typing import Any

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.model.finetuning.record import ProductionMetrics
from llm_engineering.reporting.production_answers import production_answers
from llm_engineering.scoring.answers import Answer, AnsweredRow, Answers

METRICS = HeldOutMetrics(loss=1.0, token_accuracy=0.5, tokens=1, rows=1)


def sample(key: str, after: str = "ours", *, prompt: str = "", limit: int = 64) -> Sample:
    return Sample(
        origin=f"rows.jsonl:{key}",
        prompt=prompt or key,
        reference="",
        before="base",
        after=after,
        key=key,
        max_new_tokens=limit,
    )


def answers(*keys: str, said: str = "ours", **settings: Any) -> Answers:
    def answer(text: str) -> Answer:
        return Answer(text=text, tokens=1, is_cut=False)

    made = AnswersSettings.model_validate({"scorers": ["exact"], **settings})
    rows = [
        AnsweredRow(
            origin=f"rows.jsonl:{key}",
            key=key,
            prompt=key,
            reference="",
            before=answer("base"),
            after=answer(f"{said} {key}"),
        )
        for key in keys
    ]
    return Answers(generation=made.generation, rows=rows)


def evaluation(*samples: Sample, scored: Answers | None = None) -> Evaluation:
    return Evaluation(before=METRICS, after=METRICS, samples=list(samples), answers=scored)


def test_the_same_row_is_found_in_another_order() -> None:
    found = production_answers(
        "v",
        evaluation(sample("1"), sample("2"), scored=answers("1", "2")),
        evaluation(
            sample("2", "two"), sample("1", "one"), scored=answers("2", "1", "3", said="theirs")
        ),
        None,
    )
    assert found.samples == ["one", "two"]
    assert [one.text for one in found.answers if one] == ["theirs 1", "theirs 2"]
    assert found.notes == []


def test_each_row_without_an_answer_is_named_with_its_reason() -> None:
    ours = [sample(key) for key in ("1", "2", "3")]
    theirs = [sample("1", "one"), sample("2", limit=128), sample("3", prompt="another part")]
    found = production_answers(
        "v",
        evaluation(*ours, sample("4"), scored=answers("1", "5")),
        evaluation(*theirs, scored=answers("1")),
        None,
    )
    assert found.samples == ["one", None, None, None]
    assert [one is None for one in found.answers] == [False, True]
    assert found.notes == [
        "It has no answer to 1 of the 4 sample prompts (rows.jsonl:2): its answers had at most 128 "
        "tokens, and evaluate.max_new_tokens is 64 now.",
        "It has no answer to 1 of the 4 sample prompts (rows.jsonl:3): it was asked another part of "
        "the text.",
        "It has no answer to 1 of the 4 sample prompts (rows.jsonl:4): it was not asked them when it "
        "was saved.",
        "It has no answer to 1 of the 2 scored rows (rows.jsonl:5): it was not asked them when it was "
        "saved.",
    ]


def test_answers_by_other_settings_do_not_count() -> None:
    found = production_answers(
        "v",
        evaluation(scored=answers("1", rows=1)),
        evaluation(scored=answers("1", rows=9, temperature=0.5)),
        None,
    )
    assert found.answers == [None]
    assert found.notes == [
        "It has no answer to any of the 1 scored rows: its answers were made by other settings "
        "(temperature 0.5, now 0.0)."
    ]


def test_what_cannot_be_read_or_was_stored_without_keys_is_said() -> None:
    ours = evaluation(sample("1"), scored=answers("1"))
    gone = production_answers("v", ours, None, None, missing="it is not in the store")
    assert (gone.samples, gone.answers) == ([None], [None])
    assert gone.notes == [
        "It has no answer to any of the 1 sample prompts: it is not in the store.",
        "It has no answer to any of the 1 scored rows: it is not in the store.",
    ]
    old = production_answers("v", ours, evaluation(sample("")), None, notes=["first"])
    assert old.notes == [
        "first",
        "It has no answer to any of the 1 sample prompts: its answers were stored by an earlier "
        "release, which did not tell their rows.",
        "It has no answer to any of the 1 scored rows: it was saved without scored answers.",
    ]


def test_what_was_made_beside_the_run_stands_in_for_what_was_not_stored() -> None:
    ours = evaluation(sample("1"), sample("2"))
    stored = evaluation(sample("1", "stored"))

    def found(version: str, *made: str) -> list[str | None]:
        measured = ProductionMetrics(version=version, metrics=METRICS, samples=list(made))
        return production_answers("v", ours, stored, measured).samples

    assert found("v", "made 1", "made 2") == ["stored", "made 2"]
    assert found("another", "made 1", "made 2") == ["stored", None]
    assert found("v") == ["stored", None]
