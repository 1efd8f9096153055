"""The table of ``--schedules``."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from llm_engineering.scheduling.cron_expression import next_runs
from llm_engineering.scheduling.history import Tick
from llm_engineering.scheduling.schedules import Schedule

_COLOURS = {"succeeded": "green", "skipped": "cyan", "failed": "red", "interrupted": "yellow"}


def schedules_table(rows: list[tuple[Schedule, list[Tick]]], now: datetime) -> Table:
    """One row a schedule: when it runs next, what became of its last call, where to look.

    Args:
        rows: Schedules with their histories, oldest first.
        now: Local time, without a time zone.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), expand=False)
    table.add_column("schedule", overflow="fold", ratio=2)
    table.add_column("next run", no_wrap=True)
    table.add_column("last run", overflow="fold", ratio=3)
    for schedule, ticks in rows:
        table.add_row(_what(schedule), _next(schedule, now), _last(schedule, ticks, now))
    return table


def span(seconds: float) -> str:
    """A time span in its largest sensible unit: ``45 s``, ``5 min``, ``3 h``, ``6 d``."""
    for unit, size, limit in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < size * limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def _what(schedule: Schedule) -> Text:
    clock = "" if schedule.clock == "cron" else f" ({schedule.clock})"
    return Text.assemble((schedule.name, "bold"), f"\n{schedule.cron}{clock}")


def _next(schedule: Schedule, now: datetime) -> Text:
    if schedule.clock == "orchestrator":
        return Text("the orchestrator\nknows (UTC)", "dim")
    following = next_runs(schedule.cron, now, 1)[0]
    # Through time zones, since the clock may be put forward or back in between.
    seconds = (following.astimezone() - now.astimezone()).total_seconds()
    return Text(f"{following:%a %d %b %H:%M}\nin {span(seconds)}")


def _last(schedule: Schedule, ticks: list[Tick], now: datetime) -> Text:
    """The newest call that did something, and below it the newest that had nothing to do."""
    if not ticks:
        where = "in the ZenML dashboard" if schedule.clock == "orchestrator" else "never"
        return Text(where, "dim")
    lines = []
    ran = next((tick for tick in reversed(ticks) if tick.outcome != "skipped"), None)
    if ran is not None:
        lines += [_outcome(ran, now), Text(ran.reason)]
        where = _where(schedule, ran)
        lines += [Text(where, "dim")] if where else []
    if ticks[-1] is not ran:
        lines.append(Text.assemble(_outcome(ticks[-1], now), f": {ticks[-1].reason}"))
    return Text("\n").join(lines)


def _outcome(tick: Tick, now: datetime) -> Text:
    ago = (now.astimezone() - datetime.fromisoformat(tick.started)).total_seconds()
    promoted = {True: ", promoted", False: ", not promoted", None: ""}[tick.promoted]
    return Text.assemble((f"{tick.outcome}{promoted}", _COLOURS[tick.outcome]), f" {span(ago)} ago")


def _where(schedule: Schedule, tick: Tick) -> str | None:
    """The run in the dashboard, else its report; the log of one that failed."""
    if tick.outcome != "succeeded":
        return _shown(schedule.folder / "logs" / tick.log) if tick.log else None
    return tick.url or _shown(tick.folders[-1] / "report.html")


def _shown(path: Path) -> str:
    """A path as it is shortest, from here."""
    return min(str(path), os.path.relpath(path), key=len)
