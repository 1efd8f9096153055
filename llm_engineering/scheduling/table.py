"""The table of ``--schedules``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

from llm_engineering.scheduling.cron_expression import next_runs
from llm_engineering.scheduling.history import Tick
from llm_engineering.scheduling.schedules import Schedule

_COLOURS = {"succeeded": "green", "skipped": "cyan", "failed": "red", "interrupted": "yellow"}


def schedules_table(rows: list[tuple[Schedule, list[Tick], list[str]]], now: datetime) -> Table:
    """For each schedule when it runs next, what became of its last call, and where to look.

    Facts below one another, since a path to a report is as long as a terminal is wide.

    Args:
        rows: Schedules with their histories, oldest first, and what keeps them from running.
        now: The host's time, without a time zone.
    """
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for schedule, ticks, problems in rows:
        if table.row_count:
            table.add_row()
        table.add_row("schedule", Text(schedule.name, "bold"))
        table.add_row("", f"{schedule.cron}, by {schedule.clock}")
        table.add_row("next run", _next(schedule, now))
        for problem in problems:
            table.add_row("problem", Text(problem, "bold red"))
        for label, text in _last(schedule, ticks, now):
            table.add_row(label, text)
    return table


def span(seconds: float) -> str:
    """A time span in its largest sensible unit: ``45 s``, ``5 min``, ``3 h``, ``6 d``."""
    for unit, size, limit in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < size * limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def _next(schedule: Schedule, now: datetime) -> str:
    if schedule.clock == "orchestrator":
        return "as the orchestrator keeps time, mostly UTC"
    following = next_runs(schedule.cron, now, 1)[0]
    # Through time zones, since the clock may be put forward or back in between.
    seconds = (following.astimezone() - now.astimezone()).total_seconds()
    return f"{following:%a %d %b %H:%M}, in {span(seconds)}"


def _last(schedule: Schedule, ticks: list[Tick], now: datetime) -> Iterator[tuple[str, Text]]:
    """The newest call that did something, and after it the newest that had nothing to do."""
    if not ticks:
        yield "last run", Text("in ZenML" if schedule.clock == "orchestrator" else "never")
        return
    ran = next((tick for tick in reversed(ticks) if tick.outcome != "skipped"), None)
    if ran is not None:
        yield "last run", _outcome(ran, now)
        where = _where(schedule, ran)
        if where:
            yield "", Text(where)
    if ticks[-1] is not ran:
        yield "since then" if ran else "last run", _outcome(ticks[-1], now)


def _outcome(tick: Tick, now: datetime) -> Text:
    ago = (now.astimezone() - datetime.fromisoformat(tick.started)).total_seconds()
    promoted = {True: ", promoted", False: ", not promoted", None: ""}[tick.promoted]
    return Text.assemble(
        (f"{tick.outcome}{promoted}", _COLOURS[tick.outcome]), f" {span(ago)} ago: {tick.reason}"
    )


def _where(schedule: Schedule, tick: Tick) -> str | None:
    """The run in the dashboard, else its report; the log of one that failed."""
    if tick.outcome != "succeeded":
        return _shown(schedule.folder / "logs" / tick.log) if tick.log else None
    return tick.url or _shown(tick.folders[-1] / "report.html")


def _shown(path: Path) -> str:
    """A path as it is shortest, from here."""
    return min(str(path), os.path.relpath(path), key=len)
