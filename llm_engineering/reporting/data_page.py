"""The page of a prepared data set: what is trained on, before anything was trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_engineering.data.summary import DatasetSummary, ExampleRow
from llm_engineering.reporting.charts import histogram
from llm_engineering.reporting.page import page_templates

_MOST_BAD_ROWS = 50
_WIDTH, _HEIGHT = 350, 190  # view box of a chart over half the page


def render_data_page(summary: DatasetSummary, refusals: Sequence[str] = ()) -> str:
    """Render the page: all of it is in the page, and no text of the data becomes markup.

    Args:
        summary: Of the prepared data.
        refusals: Why a run would not use it.
    """
    template = page_templates().get_template("data.html.jinja")
    return template.render(data_section(summary), refusals=refusals)


def data_section(summary: DatasetSummary) -> dict[str, Any]:
    """What ``report/data.html.jinja`` shows, which is a part of the report too."""
    findings = [("Skipped rows", summary.bad_rows, summary.bad_row_count, "was skipped")]
    for title, repeats, none in (
        ("Contradictory training rows", summary.contradictions, "is contradicted"),
        ("Repeated training rows", summary.duplicates, "is repeated"),
        ("Training rows that leak held-out ones", summary.leaks, "leaks a held-out one"),
    ):
        if repeats is not None:
            title += ", left out" if repeats.dropped else ""
            findings.append((title, repeats.first, repeats.count, none))
    train, examples = summary.train, summary.examples
    if train.example and not examples:
        examples = [ExampleRow(origin=train.example_origin, pieces=train.example)]
    missing = [none for _, _, count, none in findings if not count]
    return {
        "summary": summary,
        "found": [
            (title, lines[:_MOST_BAD_ROWS], count) for title, lines, count, _ in findings if count
        ],
        "not_found": f"No row {_in_words(missing)}." if missing else "",
        "notices": data_notices(summary),
        "not_read": [
            (one.source, sorted(one.unread.items())) for one in summary.sources if one.unread
        ],
        "examples": examples,
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


def data_notices(summary: DatasetSummary) -> list[str]:
    """What a reader should know of the data: what is not used, and the preparation's notices."""
    unused = summary.held_out_unused
    if not unused:
        return summary.notices
    rows = "1 held-out row is" if unused == 1 else f"{unused:,} held-out rows are"
    return [
        f"{rows} not used, neither trained nor evaluated on: data.held_out.max_rows is "
        f"{summary.held_out.rows:,}",
        *summary.notices,
    ]


def _in_words(parts: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
