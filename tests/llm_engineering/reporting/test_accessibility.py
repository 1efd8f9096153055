"""The pages in a browser: axe-core finds nothing serious, and nothing is wider than a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.registry.decision import Check, Decision
from llm_engineering.reporting.data_page import render_data_page
from llm_engineering.reporting.previous_run import PreviousRun
from llm_engineering.reporting.production_answers import ProductionAnswers
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.row_changes import RowChange, RowChanges
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.scoring.answers import Answer, AnsweredRow

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


MARKDOWN = f"""# A heading
**Bold**, `code`, [a link](https://example.com/{"x" * 80}) and a list:

1. one
2. two <script>alert(1)</script> <img src=x onerror=alert(1)>

| {"wide " * 400} | b |
|---|---|
| 1 | 2 |
"""
SAYINGS = [MARKDOWN, "```\nunclosed " + "x" * 300, "**شكرا** a", "c" * 100_000, "", "l\n" * 90]


def answered(run: RunReport, with_answers: Any) -> dict[str, Any]:
    """Samples and scored answers that are Markdown, long, wide, empty or of another direction."""
    said = [Answer(text=text, tokens=3, is_cut=True) for text in SAYINGS]
    rows = [
        AnsweredRow(
            origin="rows.jsonl:1",
            key="k",
            prompt=one.text,
            reference=one.text,
            before=one,
            after=said[number - 1],
        )
        for number, one in enumerate(said)
    ]
    return {
        "evaluation": with_answers(run.evaluation, rows),
        "production": ProductionAnswers("v", [None, *SAYINGS[:-1]], [None, *said[:-1]], ["so."]),
    }


def full(run: RunReport, with_answers: Any) -> RunReport:
    """The run, with everything that a report may show."""
    row = RowChange("data/held_out.jsonl:7", "Asked " * 99, "Answered\n" * 60, 3.0, 1.0)
    check = Check(name="better_than_production", passed=False, detail="1.2% higher")
    return type(run)(
        **{
            **vars(run),
            **answered(run, with_answers),
            "rows": RowChanges([row], [row], risen=0, rows=64),
            "previous": PreviousRun("run-1", [("lora.r", "16", "32")], [("Loss", "2", "1")], True),
            "promotion": Decision(
                model="m", version="v", promoted=False, reason="so", checks=[check]
            ),
        }
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_anybodys_way(
    browser: Any, run: RunReport, with_answers: Any, scheme: str, tmp_path: Path
) -> None:
    import axe_playwright_python

    axe = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    for name, html in (
        ("report", render_report(full(run, with_answers))),
        ("data", render_data_page(run.summary, ["a reason"])),
    ):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 800})
        file = tmp_path / f"{name}.html"
        file.write_text(html, encoding="utf-8")
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))  # noqa: B023
        page.on("dialog", lambda dialog: said.append(dialog.message))  # noqa: B023
        page.goto(file.as_uri())
        assert said == [], name
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        page.evaluate(axe.read_text(encoding="utf-8"))
        for as_text in (False, True):
            for switch in page.locator(".as-text").all():
                switch.set_checked(as_text)
            found = page.evaluate("axe.run()")["violations"]
            serious = [
                (one["id"], one["nodes"][0]["html"][:400])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], name
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        page.close()
