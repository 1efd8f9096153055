"""The sample answers in a report: beside production's, rendered, and with a switch to the text."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.reporting.production_answers import ProductionAnswers
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.reporting.samples_section import MOST_TEXT, samples_section

CHROMIUM = shutil.which("chromium")
SWITCH = "Show Markdown as text"


def sample(**texts: str) -> Sample:
    told = {"prompt": "Q", "reference": "R", "before": "It is a.", "after": "It is b.", **texts}
    return Sample(origin="rows.jsonl:1", **told)


@pytest.fixture
def report(make_run: Any) -> Any:
    def make(*samples: Sample, production: ProductionAnswers | None = None) -> str:
        run: RunReport = make_run(production=production)
        changed = run.evaluation.model_copy(update={"samples": list(samples)})
        return render_report(make_run(evaluation=changed, production=production))

    return make


def test_production_stands_between_base_model_and_adapter(report: Any) -> None:
    production = ProductionAnswers("run-<1>", ["It was b."], [], ["It adapts <another>."])
    html = report(sample(), production=production)
    assert re.findall('<h3 class="whose">([^<]*)', html) == [
        *("Reference", "Before · base model", "Production", "After · adapter")
    ]
    assert "It <del>was</del> b." in html
    assert "It <ins>is</ins> b." in html
    assert "says and production does not" in html
    assert "Production is the version <code>run-&lt;1&gt;</code>" in html
    assert "<li>It adapts &lt;another&gt;.</li>" in html


def test_without_production_nothing_is_said_of_it(report: Any) -> None:
    html = report(sample())
    assert html.count('<h3 class="whose">') == 3
    assert "It is <ins>b</ins>." in html
    assert "says and the base model does not" in html
    assert "Production is the version" not in html


def test_there_is_a_switch_where_there_is_markdown(report: Any) -> None:
    html = report(sample(after="It is **b**."))
    assert '<p dir="auto">It is <strong>b</strong>.</p>' in html
    assert 'class="text source"' in html
    assert html.count(SWITCH) == 1
    assert SWITCH not in report(sample())


def test_very_long_answers_and_prompts_are_cut(report: Any) -> None:
    html = report(sample(prompt="p" * 100_000, before="<" * 100_000, after="**c** " * 20_000))
    assert len(html.encode()) < 400_000
    assert html.count("… (100,000 characters)") == 2
    assert "… (120,000 characters)" in html


def test_what_does_not_fit_is_counted(report: Any) -> None:
    samples = [sample(before="<" * 4_000, after="&" * 4_000)] * 20
    section = samples_section(samples, None)
    assert 0 < section.unseen < 20
    assert len(section.shown) + section.unseen == 20
    html = report(*samples)
    assert f"{section.unseen} of 20 prompts are left out here" in html
    assert len(html.encode()) < 400_000
    assert sum(column.size for one in section.shown for column in one.columns) < MOST_TEXT


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_the_switch_needs_no_script(report: Any, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    path = tmp_path / "report.html"
    path.write_text(report(sample(after="It is **b**."), sample()), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_context(java_script_enabled=False).new_page()
        page.goto(path.as_uri())
        first, second = page.locator(".sample").all()
        after = first.locator(".after")

        def is_marked(article: Any) -> bool:
            style = "one => getComputedStyle(one).textDecorationLine"
            return bool(article.locator("del").first.evaluate(style) == "line-through")

        assert after.locator(".markdown").is_visible()
        assert not after.locator(".text").is_visible()
        assert not is_marked(first), "what is rendered beside it has no marks"
        assert is_marked(second)
        page.get_by_label(SWITCH).check()
        assert after.locator(".text").inner_text() == "It is **b**."
        assert not after.locator(".markdown").is_visible()
        assert is_marked(first)
        browser.close()
