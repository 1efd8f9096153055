"""The page of several runs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from llm_engineering.model.finetuning.record import HeldOutPoint
from llm_engineering.reporting.comparison import (
    ComparedRun,
    better,
    outcome_of,
    render_comparison,
    same_rows,
)
from llm_engineering.reporting.run_report import RunReport


def compared(run: RunReport, name: str, **changes: Any) -> ComparedRun:
    after = run.evaluation.after.model_copy(update={"row_losses": [1.0], "row_tokens": [4]})
    before = after.model_copy(update={"row_losses": [2.0]})
    evaluation = run.evaluation.model_copy(update={"before": before, "after": after})
    figures = {"held_out_loss_after": changes.pop("loss", 2.8), "tokens_per_second": 100.0}
    manifest = run.manifest.model_dump(mode="json")
    made = ComparedRun(name, manifest, figures, run.record, evaluation, "promoted")
    return replace(made, **changes)


def test_figures_curves_and_answers_are_side_by_side(run: RunReport) -> None:
    steps = run.record.points[:7]  # a run of another length
    record = run.record.model_copy(
        update={
            "points": steps,
            "held_out": [
                HeldOutPoint(step=step, metrics=run.evaluation.after) for step in (0, 3, 7)
            ],
        }
    )
    sample = run.evaluation.samples[0].model_copy(update={"after": "It returns a length."})
    other = compared(run, "two", loss=2.5, record=record)
    evaluation = other.evaluation.model_copy(update={"samples": [sample]})
    html = render_comparison(
        [compared(run, "one"), replace(other, evaluation=evaluation)],
        [better("two", "one", 0.1, 0.05, 0.95)],
    )

    assert '<td class="num">2.80</td><td class="num best">2.50</td>' in html
    assert '<td class="num">100</td><td class="num">100</td>' in html  # equal: none is best
    assert re.findall(r'polyline class="(run\d)"', html) == ["run1", "run2", "run2"]
    assert "It returns <ins>a</ins> length." in html
    assert "two</b>: its loss is −10.0 % against one, and beyond noise" in html
    assert "No setting differs." in html
    assert len(html) < 400_000


def test_other_held_out_rows_are_warned_of(run: RunReport) -> None:
    one, two = compared(run, "one"), compared(run, "two")
    assert same_rows(one, two)
    assert "other held-out rows" not in render_comparison([one, two])
    before = two.evaluation.before.model_copy(update={"row_tokens": [5]})
    other = replace(two, evaluation=two.evaluation.model_copy(update={"before": before}))
    assert not same_rows(one, other)
    assert "two was measured on other held-out rows than one" in render_comparison([one, other])
    lost = replace(two, evaluation=None, record=None, manifest={**two.manifest, "data_digest": "x"})
    assert "two has other data than one" in render_comparison([one, lost])


@pytest.mark.parametrize(("at_least", "says"), [(0.01, "beyond noise"), (-0.01, "may be noise")])
def test_a_lower_loss_may_be_noise(at_least: float, says: str) -> None:
    text = better("two", "one", 0.02, at_least, 0.95).text
    assert says in text
    assert "at 95 % confidence" in text


def test_the_gates_decision_in_a_word() -> None:
    assert outcome_of(None) == "not decided"
    assert outcome_of({"promoted": True}) == "promoted"
    checks = [{"name": "forgetting", "passed": False}, {"name": "parity", "passed": True}]
    assert outcome_of({"promoted": False, "checks": checks}) == "not promoted: forgetting"
