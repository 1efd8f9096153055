"""The loss of a training that goes on."""

from __future__ import annotations

from llm_engineering.reporting.loss_page import render_loss_page
from llm_engineering.reporting.run_report import RunReport


def test_it_shows_how_far_training_is_and_loads_nothing(run: RunReport) -> None:
    page = render_loss_page(run.record.model_copy(update={"held_out": run.record.held_out[:1]}))
    assert page.count("<svg") == 1
    assert "40 steps, 150,000 tokens, 1,500 tokens/s on One GPU" in page
    assert "src=" not in page
