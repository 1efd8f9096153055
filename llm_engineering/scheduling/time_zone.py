"""The time zone that cron and systemd go by: the host's, whatever TZ says in a terminal."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LOCALTIME = Path("/etc/localtime")


def host_zone() -> ZoneInfo:
    """The host's zone, by its name where it has one; UTC where none is set."""
    _, found, name = os.path.realpath(LOCALTIME).partition("/zoneinfo/")
    if found:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            pass
    try:
        with LOCALTIME.open("rb") as file:
            return ZoneInfo.from_file(file, key="the host's")
    except (OSError, ValueError):
        return ZoneInfo("UTC")


def other_zone() -> str | None:
    """TZ, where its clocks show another time than the host's; None if they do not, or it is not set."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        return None
    try:
        theirs = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return name
    noons = [datetime(2026, month, 1, 12) for month in (1, 7)]  # summer time and none
    return None if _offsets(theirs, noons) == _offsets(host_zone(), noons) else name


def _offsets(zone: ZoneInfo, times: list[datetime]) -> list[object]:
    return [zone.utcoffset(time) for time in times]
