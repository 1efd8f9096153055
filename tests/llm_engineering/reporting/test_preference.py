"""The report of a run that learned from preferences."""

from __future__ import annotations

from collections.abc import Callable

from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.rewards import Rewards
from llm_engineering.model.finetuning.record import HeldOutPoint
from llm_engineering.reporting.model_card import render_model_card
from llm_engineering.reporting.report import headline_tiles, outcome, render_report
from llm_engineering.reporting.run_report import RunReport

MakeRun = Callable[..., RunReport]


def metrics(loss: float, margin: float, accuracy: float, preferred: float) -> HeldOutMetrics:
    return HeldOutMetrics(
        loss=loss,
        token_accuracy=0.4,
        tokens=900,
        rows=32,
        rewards=Rewards(
            objective="dpo",
            margin=margin,
            accuracy=accuracy,
            preferred=preferred,
            log_probabilities={},
        ),
    )


def preference_run(make_run: MakeRun, started_from: str | None) -> RunReport:
    before, after = metrics(0.693, 0.0, 0.5, 0.625), metrics(0.412, 1.25, 0.875, 0.75)
    run = make_run(evaluation=Evaluation(before=before, after=after, samples=[]))
    run.record.objective, run.record.beta, run.record.started_from = "dpo", 0.1, started_from
    run.record.held_out = [
        HeldOutPoint(step=0, metrics=before),
        HeldOutPoint(step=40, metrics=after),
    ]
    return run


def test_rewards_stand_where_perplexity_would(make_run: MakeRun) -> None:
    run = preference_run(make_run, None)
    tiles = {tile.label: (tile.before, tile.value) for tile in headline_tiles(run)}
    assert tiles["Reward accuracy"] == ("50.0 %", "87.5 %")
    assert tiles["Reward margin"] == ("0", "1.25")
    assert "Perplexity" not in tiles
    assert outcome(run.evaluation).endswith("the loss fell from 0.693 to 0.412 per pair.")


def test_the_section_says_against_which_reference(make_run: MakeRun) -> None:
    report = render_report(preference_run(make_run, None))
    assert '<h2 id="preferences">Preferences</h2>' in report
    assert "Trained by DPO with beta 0.1; the reference model is the base model" in report
    assert "Better answer likelier per token" in report
    assert "Reward margin" in report
    assert "the adapter that it started from" in render_report(preference_run(make_run, "ab" * 32))


def test_a_supervised_run_has_no_such_section(run: RunReport) -> None:
    report = render_report(run)
    assert ">Preferences</h2>" not in report
    assert "Reward" not in report


def test_the_card_names_the_objective_and_its_rewards(make_run: MakeRun, run: RunReport) -> None:
    card = render_model_card(preference_run(make_run, None))
    assert "made by DPO on preferences." in card
    assert "| Loss (per pair) | 0.693 | 0.412 |" in card
    assert "| Reward accuracy | 50.0 % | 87.5 % | +37.5 points |" in card
    assert "Perplexity" not in card
    assert "- dpo\n" in card
    assert "made by supervised fine-tuning." in render_model_card(run)
