"""Calls that a schedule should have had and had not: cron was dead, the host was off, or a kill -9."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple
from zoneinfo import ZoneInfo

from llm_engineering.scheduling.cron_expression import times_after

LATE = timedelta(minutes=5)
"""A call that comes within this time after it was due is in time."""
MOST = 100
"""So many are counted."""


class _Due(NamedTuple):
    wall: datetime
    first: datetime
    last: datetime

    def is_met(self, call: datetime) -> bool:
        return self.first <= call <= self.last


def missed_calls(
    expression: str, zone: ZoneInfo, before: datetime, now: datetime
) -> list[datetime]:
    """Times at which a schedule was due since the call before, and that this call does not meet.

    By the clock on the wall, as cron has it. An hour that summer time leaves out is due once it is
    over, and one that comes twice is due once (cron(8)).

    Args:
        expression: Five fields of cron.
        zone: The time zone that it means.
        before: The call before this one, UTC.
        now: This call, UTC; earlier than ``before`` where the clock was put back: nothing is missed.

    Returns:
        Times on the wall, oldest first, at most ``MOST``.
    """
    due = (one for one in _due(expression, zone, before, now) if not one.is_met(now))
    return [one.wall for one in islice(due, MOST)]


def overdue_calls(
    expression: str, zone: ZoneInfo, before: datetime, now: datetime
) -> list[datetime]:
    """The same, as seen from outside of a call: times that no call after ``before`` met until now."""
    due = (one for one in _due(expression, zone, before, now) if one.last < now)
    return [one.wall for one in islice(due, MOST)]


def _due(expression: str, zone: ZoneInfo, before: datetime, now: datetime) -> Iterator[_Due]:
    """What is due after one call, and not met by it, until another."""
    for wall in times_after(expression, before.astimezone(zone).replace(tzinfo=None)):
        at = wall.replace(tzinfo=zone).astimezone(UTC)
        # Not zero where the clock is put forward over it: then any time of that hour meets it.
        skipped = at.astimezone(zone).replace(tzinfo=None) - wall
        one = _Due(wall, at - skipped, at + skipped + LATE)
        if one.first > now:
            return
        if not one.is_met(before):
            yield one
