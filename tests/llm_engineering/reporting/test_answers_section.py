"""Tests of ``llm_engineering.reporting.answers_section``, in the report and in the model card."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.reporting.model_card import render_model_card
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.scoring.answers import Answer, AnsweredRow, Answers, Score
from llm_engineering.scoring.score import scored

CHROMIUM = shutil.which("chromium")
HOSTILE = "<script>alert(1)</script></script>\"><img src=x onerror=alert(2)>'{{ 7 * 7 }}"


def said(text: str, *, is_cut: bool = False) -> Answer:
    return Answer(text=text, tokens=3, is_cut=is_cut)


@pytest.fixture
def with_answers(make_run: Any) -> Any:
    """The run, with so many rows answered; the adapter is right in the first half."""

    def make(rows: int = 16, text: str = "", **made: Any) -> RunReport:
        settings = AnswersSettings.model_validate({"scorers": ["exact", "rouge_l"], **made})
        answered = [
            AnsweredRow(
                origin=f"rows.jsonl:{n}",
                key=str(n),
                prompt=f"Question {n}? {text}",
                reference=f"right {n}",
                before=said("right" if n % 4 else f"right {n}"),
                after=said(f"right {n}" if n < rows // 2 else f"wrong {text}", is_cut=n == 1),
            )
            for n in range(rows)
        ]
        answers = scored(Answers(generation=settings.generation, rows=answered), settings)
        run = make_run()
        evaluation = run.evaluation.model_copy(update={"answers": answers})
        return make_run(evaluation=evaluation)

    return make


def test_scores_and_the_rows_that_moved_are_shown(with_answers: Any) -> None:
    html = render_report(with_answers())
    assert "16 held-out rows, answered greedily, at most 128 tokens each" in html
    assert "That limit cut 0 of the base model's and 1 of the adapter's." in html
    line = " ".join(re.sub("<[^>]+>", " ", html).split())
    assert "exact 0.250 0.500 +0.250" in line
    assert "6, 8, 2" in line  # better, same, worse
    assert line.count("Question 9?") == 1  # neither moved: only among all answers
    assert line.count("Question 8?") == 2  # lost
    assert len(re.findall('class="sample scored-row"', html)) == 16


def test_a_score_that_no_row_has_is_said_with_its_reason(with_answers: Any) -> None:
    run = with_answers()
    answers = run.evaluation.answers
    answers.scores.append(
        Score(
            name="judge",
            settings={},
            before=[None] * 16,
            after=[None] * 16,
            note="the key is wrong",
        )
    )
    html = render_report(run)
    assert "no row has a score" in html
    assert "the key is wrong" in html
    assert "the key is wrong" in render_model_card(run)


def test_sampling_is_told(with_answers: Any) -> None:
    html = render_report(with_answers(temperature=0.7, top_p=0.9, seed=3))
    assert "by sampling at temperature 0.7, top_p 0.9 (seed 3), at most 128 tokens each" in html


def test_the_page_runs_its_own_script_and_no_other(with_answers: Any, run: RunReport) -> None:
    html = render_report(with_answers(text=HOSTILE))
    scripts = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 3
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'"
        for one in scripts
    )
    assert f"style-src 'unsafe-inline'; script-src {hashes}\">" in html
    assert "<img" not in html
    assert 'getElementById("answers-filter' not in render_report(run), (
        "there is nothing to be filtered"
    )


def test_a_report_of_many_long_answers_stays_small_and_says_what_it_leaves_out(
    with_answers: Any,
) -> None:
    html = render_report(with_answers(400, text="<&>" * 2_000))
    assert len(html.encode()) < 400_000
    left_out = re.search(r"(\d+) of 400 rows are left out here", html)
    assert left_out is not None
    assert len(re.findall('class="sample scored-row"', html)) == 400 - int(left_out[1])
    for number in re.findall('href="#row-([0-9]+)"', html):
        assert f'id="row-{number}"' in html, "a row that moved is linked, and not there"


def test_the_card_has_the_scores(with_answers: Any, run: RunReport) -> None:
    card = render_model_card(with_answers())
    assert (
        "| Score of answers to 16 held-out rows | Before | After | Change | 95 % interval |" in card
    )
    assert "| `exact` | 0.250 | 0.500 | +0.250 |" in card
    assert "Answers were made greedily, at most 128 tokens each" in card
    assert "Score of answers" not in render_model_card(run)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_answers_are_filtered_in_a_browser(with_answers: Any, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    path = tmp_path / "report.html"
    path.write_text(render_report(with_answers()), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{path.as_uri()}#row-9")
        assert page.locator("#row-9").is_visible(), "a link to a row opens the list"
        assert page.locator("#answers-shown").inner_text() == "16 of 16 rows"
        page.select_option("select[name=outcome]", "worse")
        assert page.locator("#answers-shown").inner_text() == "2 of 16 rows"
        assert page.locator(".scored-row:visible").count() == 2
        page.select_option("select[name=outcome]", "all")
        page.fill("input[name=words]", "QUESTION 12")
        assert page.locator(".scored-row:visible").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert said == [], "the policy refused the page's own script"
        browser.close()
