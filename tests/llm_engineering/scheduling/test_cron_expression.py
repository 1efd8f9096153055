"""Cron expressions: what is refused, when they fire, and the same times in other notations."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime, timedelta

import pytest

from llm_engineering.errors import ConfigError
from llm_engineering.scheduling.cron_expression import (
    next_runs,
    parse_cron,
    to_aws_cron,
    to_calendar,
)

TUESDAY = datetime(2026, 11, 24, 12, 0)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("0 3 * * 1", "0 3 * * 1"),
        ("  */15   8-18 *\t* mon-fri ", "*/15 8-18 * * mon-fri"),
        ("@daily", "0 0 * * *"),
        ("@Weekly", "0 0 * * 0"),
    ],
)
def test_five_fields_or_a_nickname(text, fields):
    assert parse_cron(text) == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 3 * *", "has 4 field"),
        ("0 0 3 * * 1", "has 6 field"),
        ("@reboot", "has 1 field"),
        ("", "has 0 field"),
        ("60 3 * * *", "out of range"),
        ("0 24 * * *", "out of range"),
        ("0 3 * * 8", "out of range"),
        ("*/0 * * * *", "step"),
        ("0 3 * * foo", "is not acceptable"),
        ("0 0 30 2 *", "no such date"),
        ("0 0 L * *", "'L' is not something that cron reads"),
        ("0 0 * * 1#2", "'1#2' is not something"),
        ("H * * * *", "'H' is not something"),
        ("5/15 * * * *", "'5/15' is not something"),
        ("0 3 * * 1; rm -rf /", "field"),
        ("0 3 * * $(id)", "is not something"),
    ],
)
def test_what_is_no_cron_expression_is_refused_with_the_value(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_cron(text)
    assert str(caught.value).startswith(f"--schedule {text!r}: ")
    assert message in str(caught.value)


def test_next_runs_go_by_the_clock_on_the_wall():
    assert next_runs("0 3 * * 1", TUESDAY, 2) == [
        datetime(2026, 11, 30, 3, 0),
        datetime(2026, 12, 7, 3, 0),
    ]


def test_day_of_month_or_day_of_week_as_cron_has_it():
    """Both restricted: either is enough. One of them begins with a star: both must match."""
    assert [t.day for t in next_runs("0 0 26 * 6", TUESDAY, 2)] == [26, 28]
    first = next_runs("0 0 */2 * 6", TUESDAY, 1)[0]
    assert (first.day % 2, first.weekday()) == (1, 5)


@pytest.mark.parametrize(
    ("cron", "calendar"),
    [
        ("0 3 * * 1", ["Mon *-*-* 03:00:00"]),
        ("*/20 * * * *", ["*-*-* *:00,20,40:00"]),
        ("30 4 1,15 1-3 *", ["*-1,2,3-1,15 04:30:00"]),
        ("0 0 13 * 5", ["*-*-13 00:00:00", "Fri *-*-* 00:00:00"]),
        ("0 0 */10 * sun", ["Sun *-*-1,11,21,31 00:00:00"]),
        ("0 0 * * 7", ["Sun *-*-* 00:00:00"]),
    ],
)
def test_calendar_events(cron, calendar):
    assert to_calendar(cron) == calendar


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize(
    "cron",
    ["0 3 * * 1", "*/7 5-6 * * *", "30 4 1,15 1-3 *", "0 0 13 * 5", "0 0 */10 * sun", "5 4 29 2 *"],
)
def test_systemd_reads_the_same_times_from_calendar_events(cron):
    """Its own calculation against croniter's."""
    times: set[datetime] = set()
    for event in to_calendar(cron):
        done = subprocess.run(
            ["systemd-analyze", "calendar", "--iterations=12", "--base-time=2026-11-24 12:00:00 UTC", event],
            capture_output=True, text=True, check=True, env={"TZ": "UTC", "LC_ALL": "C"},
        )  # fmt: skip
        for line in done.stdout.splitlines():
            label, _, value = line.strip().partition(": ")
            if label == "Next elapse" or label.startswith("Iter"):
                times.add(datetime.strptime(value.strip(), "%a %Y-%m-%d %H:%M:%S UTC"))
    assert len(times) >= 8
    assert sorted(times)[:8] == next_runs(cron, TUESDAY - timedelta(seconds=1), 8)


@pytest.mark.parametrize(
    ("cron", "aws"),
    [
        ("0 3 * * 1", "0 3 ? * MON *"),
        ("0 3 * * 0", "0 3 ? * SUN *"),
        ("15 10 1 * *", "15 10 1 * ? *"),
        ("*/5 * * * *", "*/5 * * * ? *"),
        ("0 0 * * 1-5", "0 0 ? * MON,TUE,WED,THU,FRI *"),
    ],
)
def test_event_bridge_counts_days_of_the_week_from_one_so_they_go_by_name(cron, aws):
    assert to_aws_cron(cron) == aws


def test_event_bridge_cannot_restrict_both_days():
    with pytest.raises(ConfigError, match="restricts day of month and day of week"):
        to_aws_cron("0 0 13 * 5")
