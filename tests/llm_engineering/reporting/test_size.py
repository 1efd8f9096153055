"""A report stays small enough to be sent, whatever the run was like."""

from __future__ import annotations

from typing import Any

from llm_engineering.reporting.production_answers import ProductionAnswers
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.row_changes import RowChange, RowChanges
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.scoring.answers import Answer, AnsweredRow

TEXTS = ["**a** <b> & " * 50, "c" * 100_000, "| a | <b> |\n|---|---|\n" + "| 1 | & |\n" * 90]


def test_a_long_run_with_many_long_answers_stays_under_400_kb(
    make_run: Any, run: RunReport, with_answers: Any
) -> None:
    point = run.record.points[0]
    points = [
        point.model_copy(update={"step": step, "loss": 1 + (step * 7919 % 10007) / 10007})
        for step in range(1, 20_001)
    ]
    said = [Answer(text=text, tokens=9, is_cut=True) for text in TEXTS * 20]
    rows = [
        AnsweredRow(
            origin=f"rows.jsonl:{number}",
            key=str(number),
            prompt="Asked " * 20,
            reference=one.text,
            before=said[number - 1],
            after=one,
        )
        for number, one in enumerate(said)
    ]
    row = RowChange("rows.jsonl:1", "Asked <b> " * 60, "Answered & " * 55, 3.0, 1.0)
    html = render_report(
        make_run(
            record=run.record.model_copy(update={"points": points}),
            evaluation=with_answers(run.evaluation, rows),
            production=ProductionAnswers("v", [one.text for one in said], list(said)),
            rows=RowChanges([row] * 3, [row] * 3, risen=0, rows=64),
        )
    )
    assert "prompts are left out here" in html
    assert "rows are left out here" in html
    assert "<strong>" in html
    assert len(html.encode()) < 400_000
