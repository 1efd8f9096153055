"""Cron expressions: what is accepted, when they fire next, and the same in other notations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from croniter import CroniterBadDateError, CroniterError, croniter

from llm_engineering.errors import ConfigError

_DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# What every cron reads. croniter reads more (seconds, L, #, H, R), which cron does not.
_VALUE = r"(?:\d{1,2}|[A-Za-z]{3})"
_PART = rf"(?:\*(?:/\d+)?|{_VALUE}(?:-{_VALUE}(?:/\d+)?)?)"
_FIELD = re.compile(rf"{_PART}(?:,{_PART})*")


def parse_cron(text: str) -> str:
    """The five fields of a cron expression: minute, hour, day of month, month, day of week.

    Raises:
        ConfigError: It is not one that every cron reads, or it never fires.
    """
    expression = _NICKNAMES.get(text.strip().lower(), " ".join(text.split()))
    fields = expression.split()
    if len(fields) != 5:
        raise ConfigError(
            f"--schedule {text!r}: has {len(fields)} field(s), expected five: minute, hour, day of "
            'month, month, day of week; for example "0 3 * * 1", Mondays at three'
        )
    for field in fields:
        if not _FIELD.fullmatch(field):
            raise ConfigError(
                f"--schedule {text!r}: {field!r} is not something that cron reads; use numbers, "
                "three-letter names, lists 1,15, ranges 1-5, steps */15 or *"
            )
    try:
        next_runs(expression, datetime(2024, 1, 1), 1)
    except CroniterBadDateError:
        raise ConfigError(f"--schedule {text!r}: there is no such date, ever") from None
    except CroniterError as error:
        raise ConfigError(f"--schedule {text!r}: {error}") from None
    return expression


def next_runs(expression: str, after: datetime, count: int) -> list[datetime]:
    """The next ``count`` times after ``after``, in the wall-clock time that ``after`` is in.

    Give a datetime without a time zone, as cron goes by the clock on the wall.
    """
    return list(islice(times_after(expression, after), count))


def times_after(expression: str, after: datetime) -> Iterator[datetime]:
    """All times after ``after``, without an end; as ``next_runs``."""
    times = croniter(expression, after, ret_type=datetime, implement_cron_bug=True)
    while True:
        yield times.get_next()


def to_calendar(expression: str) -> list[str]:
    """The same times as systemd calendar events (``systemd.time(7)``); one or two.

    Cron fires when the day of the month *or* the day of the week matches, if both are restricted
    and neither begins with a star; one calendar event only knows *and*.
    """
    minute, hour, day, month, weekday = (
        [value for value in field if value != "*"] for field in croniter.expand(expression)[0]
    )
    clock = f"{_listed(hour, 2)}:{_listed(minute, 2)}:00"
    dates = f"*-{_listed(month)}"
    names = ",".join(_DAYS[int(value)] for value in weekday)
    stars = [expression.split()[field].startswith("*") for field in (2, 4)]
    if day and weekday and not any(stars):
        return [f"{dates}-{_listed(day)} {clock}", f"{names} {dates}-* {clock}"]
    return [f"{names} {dates}-{_listed(day)} {clock}".lstrip()]


def to_aws_cron(expression: str) -> str:
    """The same times in the six fields of an EventBridge schedule.

    One of day of month and day of week must be ``?`` there, and days of the week count from one.

    Raises:
        ConfigError: It restricts both, which EventBridge cannot say.
    """
    minute, hour, day, month, weekday = expression.split()
    if day != "*" and weekday != "*":
        raise ConfigError(
            f"--schedule {expression!r}: restricts day of month and day of week, which a SageMaker "
            "schedule cannot; leave one of them *"
        )
    if weekday == "*":
        return f"{minute} {hour} {day} {month} ? *"
    days = croniter.expand(expression)[0][4]
    names = ",".join(_DAYS[int(value)].upper() for value in days)
    return f"{minute} {hour} ? {month} {names} *"


def _listed(values: list[int | str], width: int = 1) -> str:
    return ",".join(f"{value:0{width}d}" for value in values) or "*"
