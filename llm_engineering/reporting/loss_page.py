"""The page of a training's loss alone, while it goes on."""

from __future__ import annotations

from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.reporting import formats
from llm_engineering.reporting.page import page_templates
from llm_engineering.reporting.report import loss_figure
from llm_engineering.reporting.scripts import page_scripts
from llm_engineering.reporting.zoom import zooms


def render_loss_page(record: TrainingRecord) -> str:
    """Render the page: the curve so far, and where training is."""
    template = page_templates().get_template("loss.html.jinja")
    figure = loss_figure(record)
    return template.render(
        figure=figure,
        **page_scripts(zooms=zooms(figure)),
        course=f"{formats.count(record.steps)} steps, {formats.count(record.train_tokens)} tokens, "
        f"{formats.number(record.tokens_per_second)} tokens/s on {record.device}",
    )
