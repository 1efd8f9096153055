"""Which calls a schedule missed, by the clock on the wall and through summer time both ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from llm_engineering.scheduling.missed import MOST, missed_calls

BERLIN = ZoneInfo("Europe/Berlin")  # 02:00 -> 03:00 on 29 March 2026; 03:00 -> 02:00 on 25 October


def at(text: str, *, fold: int = 0) -> datetime:
    """Berlin's time, as UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def missed(cron: str, before: datetime, now: datetime) -> list[str]:
    return [f"{time:%d %H:%M}" for time in missed_calls(cron, BERLIN, before, now)]


@pytest.mark.parametrize(
    ("cron", "before", "now", "expected"),
    [
        ("0 3 * * *", "2026-06-01 03:00:02", "2026-06-02 03:00:02", []),
        ("0 3 * * *", "2026-06-01 03:00:02", "2026-06-02 03:04:59", []),
        # The host was off over two nights; by cron, at the next time, and by systemd, once it is up.
        ("0 3 * * *", "2026-06-01 03:00:02", "2026-06-04 03:00:01", ["02 03:00", "03 03:00"]),
        ("0 3 * * *", "2026-06-01 03:00:02", "2026-06-03 08:00:00", ["02 03:00", "03 03:00"]),
        # By hand, beside the clock: nothing is due; later what was due then is not forgotten.
        ("0 3 * * *", "2026-06-01 03:00:02", "2026-06-01 12:00:00", []),
        ("0 3 * * *", "2026-06-01 12:00:00", "2026-06-02 03:00:01", []),
        ("*/10 * * * *", "2026-06-01 03:00:02", "2026-06-01 03:30:01", ["01 03:10", "01 03:20"]),
        # The hour that is left out: cron calls at its end, others an hour later.
        ("30 2 * * *", "2026-03-28 02:30:01", "2026-03-29 03:00:01", []),
        ("30 2 * * *", "2026-03-28 02:30:01", "2026-03-29 03:30:01", []),
        ("30 2 * * *", "2026-03-29 03:00:01", "2026-03-30 02:30:01", []),
        ("30 2 * * *", "2026-03-28 02:30:01", "2026-03-30 02:30:01", ["29 02:30"]),
        ("0 * * * *", "2026-03-29 01:00:01", "2026-03-29 03:00:01", []),
        # A clock that was put back by a year, or on by one.
        ("0 3 * * *", "2026-06-01 03:00:02", "2025-06-02 03:00:00", []),
    ],
)
def test_by_the_clock_on_the_wall(cron, before, now, expected):
    assert missed(cron, at(before), at(now)) == expected


def test_the_hour_that_comes_twice_is_due_once():
    first, second = at("2026-10-25 02:30:01"), at("2026-10-25 02:30:01", fold=1)
    assert second - first == timedelta(hours=1)
    assert missed("30 2 * * *", at("2026-10-24 02:30:01"), first) == []
    assert missed("30 2 * * *", first, second) == []
    assert missed("30 2 * * *", first, at("2026-10-26 02:30:01")) == []
    assert missed("30 2 * * *", at("2026-10-24 02:30:01"), at("2026-10-26 02:30:01")) == [
        "25 02:30"
    ]


def test_a_clock_that_jumps_by_decades_is_counted_to_an_end():
    assert len(missed("* * * * *", at("2026-06-01 03:00:02"), at("2056-06-01 03:00:00"))) == MOST


def test_a_call_is_late_once_it_had_its_time():
    before = at("2026-06-01 03:00:02")
    assert missed_calls("0 3 * * *", BERLIN, before, at("2026-06-02 03:04:00")) == []
    (due,) = missed_calls("0 3 * * *", BERLIN, before, at("2026-06-02 03:05:01"))
    assert due == datetime(2026, 6, 2, 3)
