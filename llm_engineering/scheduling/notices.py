"""What the user is told of a schedule: a failure, a run that does not end, missed calls, and their end."""

from __future__ import annotations

import shlex
import socket
import sys
from datetime import datetime
from itertools import takewhile

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling.alert import send_alert
from llm_engineering.scheduling.history import Tick, last_success, newest_start, read_history
from llm_engineering.scheduling.incidents import Incidents
from llm_engineering.scheduling.missed import missed_calls
from llm_engineering.scheduling.schedules import ROOT, Schedule
from llm_engineering.scheduling.time_zone import host_zone

OVERLAP = "the run before it is still going on"
"""Reason of a call that finds its schedule at work."""
_FREE = "has ended: its calls overlap no more"


def tell_failure(
    schedule: Schedule, settings: ScheduleSettings, tick: Tick, *, why: str, reason: str
) -> None:
    """A call failed.

    Args:
        schedule: Which.
        settings: How to tell.
        tick: The call.
        why: Why it ran.
        reason: What failed.
    """
    log = str(schedule.folder / "logs" / tick.log) if tick.log else "none: it did not begin"
    facts = {"why it ran": why or "not known yet", "attempts": str(len(tick.runs))}
    text = f"{_headline(schedule, 'failed')}\n\n{reason}\n\n{_facts(schedule, facts, log)}"
    incidents = Incidents(schedule.folder, settings)
    incidents.open("failed", reason, text)
    incidents.close("overlap", _headline(schedule, _FREE))


def tell_overlaps(schedule: Schedule) -> None:
    """Calls that find a run going on, again and again: it may hang."""
    ticks = read_history(schedule.folder)
    in_a_row = len(list(takewhile(lambda tick: tick.reason == OVERLAP, reversed(ticks))))
    if in_a_row < schedule.settings.alert_after_overlaps:
        return
    text = (
        f"{_headline(schedule, 'has not ended')}\n\n{in_a_row} calls in a row found the run before them "
        "still going on. If it hangs, end its process; schedule.max_run_seconds ends the next one by "
        f"itself.\n\n{_facts(schedule, {}, _logs(schedule))}"
    )
    Incidents(schedule.folder, schedule.settings).open("overlap", OVERLAP, text)


def tell_missed(schedule: Schedule, settings: ScheduleSettings, tick: Tick) -> None:
    """Calls that should have come before this one and left no trace: over by now, so told once."""
    now = datetime.fromisoformat(tick.started)
    before = newest_start(read_history(schedule.folder), now, schedule.created)
    if before is None or schedule.clock == "orchestrator":
        return
    missed = missed_calls(schedule.cron, host_zone(), before, now)
    if not missed:
        return
    send_alert(
        f"{_headline(schedule, f'missed {len(missed)} call(s)')}\n\nFrom {missed[0]:%a %d %b %H:%M} to "
        f"{missed[-1]:%a %d %b %H:%M} none left a trace: the host was off, no cron daemon ran, or they "
        "were killed (kill -9). This call makes up for them.\n\n"
        f"{_facts(schedule, {}, _logs(schedule))}",
        settings,
    )


def tell_it_is_over(schedule: Schedule, settings: ScheduleSettings, tick: Tick) -> None:
    """A call went well: what was told before is over."""
    incidents = Incidents(schedule.folder, settings)
    incidents.close("overlap", _headline(schedule, _FREE))
    works = f"works again\n\nThe call of now: {tick.outcome}, {tick.reason}."
    incidents.close("failed", _headline(schedule, works))


def _headline(schedule: Schedule, what: str) -> str:
    return f"The scheduled fine-tuning {schedule.name} on {socket.gethostname()} {what}"


def _logs(schedule: Schedule) -> str:
    return str(schedule.folder / "logs")


def _facts(schedule: Schedule, facts: dict[str, str], log: str) -> str:
    try:
        success = last_success(read_history(schedule.folder))
    except OSError:
        success = None
    again = [sys.executable, str(ROOT / "tools" / "run.py"), "--run-scheduled", schedule.name]
    shown = {
        **facts,
        "last success": f"{success.runs[-1]}, {success.finished}" if success else "none yet",
        "configuration": str(schedule.config_path),
        "log": log,
        "run it again": shlex.join(again),
    }
    return "".join(f"{name:<14} {value}\n" for name, value in shown.items())
