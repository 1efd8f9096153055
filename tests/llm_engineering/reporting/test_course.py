"""What the report says of the course of a training: kept weights, an early end, answers meanwhile."""

from __future__ import annotations

from llm_engineering.model.finetuning.record import HeldOutPoint, SamplePoint
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.run_report import RunReport


def test_kept_weights_and_an_early_end_are_said(run: RunReport) -> None:
    plain = render_report(run)
    assert "were saved" not in plain
    assert "had ceased to fall" not in plain
    metrics = run.record.after
    run.record.held_out.insert(1, HeldOutPoint(step=20, metrics=metrics))
    run.record.kept_step, run.record.stopped_early = 20, True
    report = render_report(run)
    assert (
        "The weights of step 20 were saved: their loss on the held-out rows is the lowest."
        in report
    )
    assert (
        "Training ended at step 40, since the loss on the held-out rows had ceased to fall."
        in report
    )
    assert "that decided that also judge the result" in report


def test_rows_that_chose_are_told_from_those_that_judge(run: RunReport) -> None:
    run.record.kept_step = 20
    run.record.validation = [HeldOutPoint(step=20, metrics=run.record.after)]
    run.summary.validation = run.summary.held_out.model_copy(update={"rows": 7})
    report = render_report(run)
    assert "their loss on the validation rows is the lowest" in report
    assert "The 7 validation rows decided that; this report and the gate judge by the" in report
    assert "also judge the result" not in report
    assert "validation rows</text>" in report


def test_answers_given_while_training_stand_by_their_prompt(run: RunReport) -> None:
    assert "While training" not in render_report(run)
    run.record.samples = [
        SamplePoint(step=10, answers=["It is <b>a</b> function that"]),
        SamplePoint(step=20, answers=["It returns"]),
    ]
    report = render_report(run)
    assert "It is &lt;b&gt;a&lt;/b&gt; function that" in report
    assert report.index("Step 10") < report.index("Step 20")


def test_ranks_by_module_have_columns(run: RunReport) -> None:
    assert '<th scope="col" class="num">Rank</th>' not in render_report(run)
    settings = run.lora.settings.model_copy(update={"rank_pattern": {"down_proj": 64}})
    first, second = run.lora.matched
    matched = (
        first.model_copy(update={"rank": 32, "scaling": 0.5}),
        second.model_copy(update={"rank": 64, "scaling": 0.25}),
    )
    lora = run.lora.model_copy(update={"settings": settings, "matched": matched})
    report = render_report(type(run)(**{**vars(run), "lora": lora}))
    assert '<th scope="col" class="num">Rank</th><th scope="col" class="num">Scaling</th>' in report
    assert '<td class="num">64</td><td class="num">0.25</td>' in report
