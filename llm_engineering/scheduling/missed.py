"""Calls that a schedule should have had and had not: cron was dead, the host was off, or a kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from llm_engineering.scheduling.cron_expression import times_after

LATE = timedelta(minutes=5)
"""A call that comes within this time after it was due is in time."""
MOST = 100
"""So many are counted."""


def missed_calls(
    expression: str, zone: ZoneInfo, before: datetime, now: datetime
) -> list[datetime]:
    """Times at which a schedule was due since the call before, and that came and went without a call.

    By the clock on the wall, as cron has it. An hour that summer time leaves out is due once it is
    over, and one that comes twice is due once (cron(8)). What is due now, or was within ``LATE``, may
    be this very call, or one that is about to come.

    Args:
        expression: Five fields of cron.
        zone: The time zone that it means.
        before: The call before this one, UTC.
        now: This call, or any time, UTC; earlier than ``before`` where the clock was put back: then
            nothing is missed.

    Returns:
        Times on the wall, oldest first, at most ``MOST``.
    """
    due = (wall for wall, at in _due(expression, zone, before, now) if at + LATE < now)
    return list(islice(due, MOST))


def _due(
    expression: str, zone: ZoneInfo, before: datetime, now: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """What is due after one call until another: on the wall, and in UTC.

    A time that summer time leaves out is, in UTC, one of the hour after it.
    """
    for wall in times_after(expression, before.astimezone(zone).replace(tzinfo=None)):
        at = wall.replace(tzinfo=zone).astimezone(UTC)
        if at > now:
            return
        yield wall, at
