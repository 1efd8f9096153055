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
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.row_changes import RowChange, RowChanges
from llm_engineering.reporting.run_report import RunReport

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


def full(run: RunReport) -> RunReport:
    """The run, with everything that a report may show."""
    row = RowChange("data/held_out.jsonl:7", "Asked", "Answered", 3.0, 1.0)
    check = Check(name="better_than_production", passed=False, detail="1.2% higher")
    return type(run)(
        **{
            **vars(run),
            "rows": RowChanges([row], [row], risen=0, rows=64),
            "previous": PreviousRun("run-1", [("lora.r", "16", "32")], [("Loss", "2", "1")], True),
            "promotion": Decision(
                model="m", version="v", promoted=False, reason="so", checks=[check]
            ),
        }
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_anybodys_way(
    browser: Any, run: RunReport, scheme: str, tmp_path: Path
) -> None:
    import axe_playwright_python

    axe = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    for name, html in (
        ("report", render_report(full(run))),
        ("data", render_data_page(run.summary, ["a reason"])),
    ):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 800})
        file = tmp_path / f"{name}.html"
        file.write_text(html, encoding="utf-8")
        page.goto(file.as_uri())
        page.evaluate(axe.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run()")["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], name
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        page.close()
