"""The table of --schedules, as it is read."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from llm_engineering.scheduling.history import Tick
from llm_engineering.scheduling.table import schedules_table, span

NOW = datetime(2026, 11, 24, 12, 0)


def ago(**span: float) -> str:
    return (NOW.astimezone() - timedelta(**span)).astimezone(UTC).isoformat(timespec="seconds")


def rendered(rows, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(schedules_table(rows, NOW))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45 s"), (300, "5 min"), (5 * 3600, "5 h"), (60 * 3600, "2 d"), (0, "0 s")],
)
def test_spans(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize("width", [80, 120])
def test_it_says_when_what_why_and_where(make_schedule, width):
    ran = Tick(
        started=ago(hours=9), outcome="succeeded", reason="data changed", promoted=True,
        runs=["nightly-20261124-030000"], output_dir=Path.cwd() / "outputs",
    )  # fmt: skip
    nothing = Tick(started=ago(minutes=5), outcome="skipped", reason="nothing changed")
    failed = Tick(
        started=ago(days=3), outcome="failed", reason="killed by SIGKILL", runs=["x"], log="x.log"
    )
    text = rendered(
        [
            (make_schedule(), [ran, nothing], []),
            (
                make_schedule(name="weekly", cron="30 4 * * 1", clock="systemd"),
                [failed],
                ["no timer"],
            ),
            (make_schedule(name="new"), [], []),
        ],
        width,
    )
    for line in (
        "Wed 25 Nov 03:00, in 15 h",
        "succeeded, promoted 9 h ago: data changed",
        "outputs/nightly-20261124-030000/report.html",
        "skipped 5 min ago: nothing changed",
        "30 4 * * 1, by systemd",
        "problem      no timer",
        "failed 3 d ago: killed by SIGKILL",
        "logs/x.log",
        "never",
    ):
        assert line in text, line
    assert max(map(len, text.splitlines())) <= width


def test_a_run_in_the_dashboard_is_linked(make_schedule):
    ran = Tick(
        started=ago(hours=9), outcome="succeeded", runs=["x"], output_dir=Path("/o"),
        url="http://127.0.0.1:8237/runs/1",
    )  # fmt: skip
    assert "http://127.0.0.1:8237/runs/1" in rendered([(make_schedule(), [ran], [])], 80)
