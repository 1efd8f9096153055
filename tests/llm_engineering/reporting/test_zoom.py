"""Curves that zoom: their points, and what a browser makes of them."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.model.finetuning.record import HeldOutPoint
from llm_engineering.reporting.charts import Series
from llm_engineering.reporting.comparison import ComparedRun, render_comparison
from llm_engineering.reporting.loss_page import render_loss_page
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.reporting.zoom import zooming_figure, zooms

CHROMIUM = shutil.which("chromium")
in_a_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
]


def figure(*series: Series) -> Any:
    return zooming_figure("Loss", "nats", series, width=720, height=300, label="Loss of <it>")


def told(text: str) -> Any:
    return json.loads(html.unescape(re.findall(r'data-zoom="([^"]*)"', text)[0]))


def test_points_travel_beside_the_static_chart() -> None:
    points = [(float(step), 1 / step) for step in range(1, 8)]
    found = figure(Series('"a" & <b>', points, "raw"), Series("held", [(0.0, math.nan)], "marks"))
    assert "<svg" in found
    assert 'aria-label="Loss of &lt;it&gt;"' in found
    assert told(found)["mean"] == 1
    assert told(found)["series"] == [  # the other has no finite point
        {
            "label": '"a" & <b>',
            "style": "raw",
            "x": [1, 2, 3, 4, 5, 6, 7],
            "y": [1, 0.5, 0.333333, 0.25, 0.2, 0.166667, 0.142857],
        }
    ]


def test_of_very_many_points_means_are_taken_and_counted() -> None:
    points = [(float(step), 1.23456 + step % 7) for step in range(20_000)]
    found = figure(Series("training", points, "raw"), Series("mean", points, "line"))
    assert told(found)["mean"] == 14
    assert len(told(found)["series"][0]["x"]) == math.ceil(20_000 / 14)
    assert len(found.encode()) < 160_000


def test_two_points_are_not_zoomed_into() -> None:
    found = figure(Series("held", [(0.0, 1.0), (9.0, 0.5)], "marks"))
    assert "data-zoom" not in found
    assert not zooms(found)
    assert zooms(found, figure(Series("training", [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)], "raw")))


def test_a_page_without_a_curve_runs_nothing(make_run: Any, run: RunReport) -> None:
    empty = run.record.model_copy(update={"points": []})
    assert "<script>" not in render_report(make_run(record=empty))
    assert "<script>" not in render_loss_page(empty)
    assert render_loss_page(run.record).count("<script>") == 2


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


class Opened:
    """A page in a browser, its figure of the loss, and what the console said."""

    def __init__(self, browser: Any, path: Path, html: str, **options: Any) -> None:
        path.write_text(html, encoding="utf-8")
        self.page = browser.new_context(**options).new_page()
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.goto(path.as_uri())
        self.figure = self.page.locator("figure[data-zoom]").first

    @property
    def steps(self) -> str:
        """The range that is shown, as the page tells it."""
        return str(self.figure.locator("output").inner_text())

    def drag(self, start: float, end: float) -> None:
        """Select a range, given as shares of the plot's width."""
        plot, mouse = self.figure.locator(".u-over"), self.page.mouse
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        mouse.move(box["x"] + start * box["width"], box["y"] + 50)
        mouse.down()
        mouse.move(box["x"] + end * box["width"], box["y"] + 80, steps=4)
        mouse.up()

    def wait(self, condition: str) -> None:
        """Until it holds; the page's policy forbids Playwright's own way to wait, by eval."""
        for _ in range(100):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"never: {condition}")

    def press(self, button: str) -> None:
        self.figure.get_by_role("button", name=button).click()


@pytest.fixture
def long_run(make_run: Any, run: RunReport) -> RunReport:
    point = run.record.points[0]
    points = [
        point.model_copy(update={"step": step, "loss": 1 + 2 * math.exp(-step / 50)})
        for step in range(1, 201)
    ]
    held_out = [HeldOutPoint(step=step, metrics=run.record.after) for step in (0, 100, 200)]
    changes = {"points": points, "held_out": held_out, "steps": 200}
    return replace(run, record=run.record.model_copy(update=changes))


class TestInABrowser:
    pytestmark = in_a_browser

    def test_a_range_is_dragged_moved_and_left(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        opened = Opened(browser, tmp_path / "report.html", render_report(long_run))
        assert opened.steps == "Steps 0 to 200"
        assert not opened.figure.locator(".chart").is_visible()
        opened.drag(0.25, 0.5)
        assert opened.steps == "Steps 50 to 100 of 0 to 200"
        opened.press("Later steps")
        assert opened.steps == "Steps 75 to 125 of 0 to 200"
        opened.figure.locator(".u-over").dblclick()
        assert opened.steps == "Steps 0 to 200"
        opened.drag(0.5, 0.5005)  # a click that shook
        assert opened.steps == "Steps 0 to 200"
        opened.drag(0.5, 0.51)
        assert opened.steps == "Steps 99 to 103 of 0 to 200", "never less than four steps"
        opened.press("Whole curve")
        assert opened.steps == "Steps 0 to 200"
        assert opened.said == [], "the policy refused a script of the page's own"

    def test_the_keyboard_reaches_all_of_it(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        opened = Opened(browser, tmp_path / "report.html", render_report(long_run))
        keys = opened.page.keyboard
        opened.figure.focus()
        keys.press("+")
        assert opened.steps == "Steps 50 to 150 of 0 to 200"
        keys.press("ArrowLeft")
        assert opened.steps == "Steps 0 to 100 of 0 to 200"
        keys.press("Tab")  # to the first button that is not disabled
        keys.press("Enter")
        assert opened.steps == "Steps 25 to 75 of 0 to 200"
        keys.press("Escape")
        assert opened.steps == "Steps 0 to 200"

    def test_paper_has_the_whole_curve_and_no_buttons(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        opened = Opened(browser, tmp_path / "report.html", render_report(long_run))
        opened.drag(0.25, 0.5)
        opened.page.emulate_media(media="print")
        assert opened.figure.locator(".chart").is_visible()
        assert not opened.figure.locator(".zoom").is_visible()

    def test_without_scripts_the_static_curve_stays(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        opened = Opened(
            browser, tmp_path / "report.html", render_report(long_run), java_script_enabled=False
        )
        assert opened.figure.locator(".chart").is_visible()
        assert opened.page.locator(".zoom").count() == 0

    def test_a_library_that_fails_leaves_the_static_curve(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        opened = Opened(browser, tmp_path / "report.html", render_report(long_run))
        opened.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        opened.page.reload()
        assert opened.figure.locator(".chart").is_visible()
        assert not opened.figure.get_by_role("button", name="Zoom in").is_visible()

    def test_it_fits_a_phone_and_follows_its_turning(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        phone = {"width": 390, "height": 800}
        opened = Opened(browser, tmp_path / "report.html", render_report(long_run), viewport=phone)
        width = "document.documentElement.scrollWidth"
        assert opened.page.evaluate(width) <= 390
        narrow = opened.figure.locator("canvas").bounding_box()["width"]
        assert 300 < narrow <= 390
        opened.page.set_viewport_size({"width": 800, "height": 390})
        opened.wait("document.querySelector('figure[data-zoom] canvas').offsetWidth > 600")
        opened.page.set_viewport_size(phone)
        opened.wait(f"{width} <= 390")

    def test_colours_change_with_the_scheme(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        opened = Opened(
            browser, tmp_path / "report.html", render_report(long_run), color_scheme="light"
        )
        opened.drag(0.25, 0.5)
        pixels = "document.querySelector('figure[data-zoom] canvas').toDataURL()"
        light = opened.page.evaluate(pixels)
        opened.page.emulate_media(color_scheme="dark")
        opened.wait(f"{pixels} !== {json.dumps(light)}")
        assert opened.steps == "Steps 50 to 100 of 0 to 200", "the range was lost"

    def test_the_dashboards_frame_holds_curve_axis_and_buttons(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        frame = {"width": 800, "height": 384}
        opened = Opened(
            browser, tmp_path / "loss.html", render_loss_page(long_run.record), viewport=frame
        )
        opened.drag(0.25, 0.5)
        assert opened.steps == "Steps 50 to 100 of 0 to 200"
        assert opened.page.evaluate("document.documentElement.scrollHeight") <= 384
        assert opened.said == []

    def test_compared_runs_zoom_too(
        self, browser: Any, long_run: RunReport, tmp_path: Path
    ) -> None:
        manifest = long_run.manifest.model_dump(mode="json")
        runs = [
            ComparedRun(name, manifest, {}, long_run.record, long_run.evaluation, "promoted")
            for name in ("one", "two")
        ]
        page = render_comparison(runs)
        assert len(page.encode()) < 400_000
        opened = Opened(browser, tmp_path / "compared.html", page)
        opened.drag(0.25, 0.5)
        assert "of 1 to 200" in opened.steps
        assert opened.said == []
