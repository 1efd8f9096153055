"""The page of a prepared data set: what is trained on, before anything was trained."""

from __future__ import annotations

from typing import Any

from llm_engineering.data.dataset import DatasetSummary
from llm_engineering.reporting.charts import histogram
from llm_engineering.reporting.page import page_templates

_MOST_BAD_ROWS = 50
_WIDTH, _HEIGHT = 350, 190  # view box of a chart over half the page


def render_data_page(summary: DatasetSummary) -> str:
    """Render the page: all of it is in the page, and no text of the data becomes markup."""
    return page_templates().get_template("data.html.jinja").render(data_section(summary))


def data_section(summary: DatasetSummary) -> dict[str, Any]:
    """What ``report/data.html.jinja`` shows, which is a part of the report too."""
    return {
        "summary": summary,
        "bad_rows": summary.bad_rows[:_MOST_BAD_ROWS],
        "length_charts": [
            histogram(
                title,
                "by length in tokens",
                split.rows_by_length,
                split.length_bin,
                width=_WIDTH,
                height=_HEIGHT,
                x_label="tokens",
            )
            for title, split in (
                ("Training rows", summary.train),
                ("Held-out rows", summary.held_out),
            )
        ],
    }
