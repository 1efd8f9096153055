"""``--schedule`` and its like: fine-tune by the clock, see what came of it, stop it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from llm_engineering.commands.terminal import set_up_terminal
from llm_engineering.configuration import FinetuningConfig, load_config
from llm_engineering.errors import ConfigError, FinetuningError, SetupError
from llm_engineering.outputs import model_and_data

if TYPE_CHECKING:
    from llm_engineering.scheduling.history import Tick
    from llm_engineering.scheduling.schedules import Schedule


def add(
    cron: str,
    name: str | None,
    config_path: Path,
    overrides: Sequence[str],
    *,
    target: Literal["local", "sagemaker"],
) -> None:
    """Fine-tune by the clock from now on.

    Args:
        cron: A cron expression.
        name: The schedule's name; default: model and data, as in a run's name. One of that name
            for the same configuration file is changed, and keeps its history.
        config_path: The configuration, read again at each run.
        overrides: Values of --set.
        target: "local" or "sagemaker".

    Raises:
        ConfigError: The expression, the name or the configuration is wrong.
        SetupError: This host has no scheduler.
    """
    from llm_engineering.scheduling import clock
    from llm_engineering.scheduling.cron_expression import next_runs, parse_cron
    from llm_engineering.scheduling.environment import kept_environment
    from llm_engineering.scheduling.schedules import (
        Schedule,
        delete_schedule,
        find_schedule,
        write_schedule,
    )
    from llm_engineering.scheduling.time_zone import host_zone

    expression = parse_cron(cron)
    config = load_config(config_path, overrides)
    _check_target(config, target)
    set_up_terminal()
    name = name or model_and_data(config).lstrip("._-")[:64]
    former = find_schedule(name)
    if former is not None and former.config_path != config_path.resolve():
        raise ConfigError(
            f"--name: {name} is a schedule of {former.config_path} already; choose another name, "
            f"or remove it with --unschedule {name}"
        )
    environment, secret = kept_environment()
    schedule = Schedule(
        name=name,
        cron=expression,
        config_path=config_path.resolve(),
        overrides=list(overrides),
        target=target,
        working_directory=Path.cwd(),
        environment=environment,
        clock=clock.choose_clock(target),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=config.schedule,
    )
    if former is not None and former.clock != schedule.clock:
        clock.remove(former)
    write_schedule(schedule)
    try:
        clock.install(schedule, config)
    except BaseException:
        write_schedule(former) if former else delete_schedule(name)
        raise
    zone = host_zone()
    times = next_runs(expression, datetime.now(zone).replace(tzinfo=None), 3)
    print(f"{'changed' if former else 'scheduled'}      {name}, by {schedule.clock}")
    print(f"next runs      {', '.join(f'{time:%a %d %b %H:%M}' for time in times)} ({zone.key})")
    print(f"logs           {schedule.folder}/logs")
    print(f"run it now     tools/run.py --run-scheduled {name}")
    print(f"remove it      tools/run.py --unschedule {name}")
    for warning in (*clock.problems(schedule), *_not_kept(secret), *_missing_input(config)):
        click.secho(f"warning: {warning}", fg="yellow", err=True)


def show() -> None:
    """Print all schedules: next and last run, outcome, where to look."""
    from rich.console import Console

    from llm_engineering.scheduling.history import read_history
    from llm_engineering.scheduling.schedules import read_schedule, schedule_names
    from llm_engineering.scheduling.table import schedules_table
    from llm_engineering.scheduling.time_zone import host_zone

    schedules = [read_schedule(name) for name in schedule_names()]
    if not schedules:
        print('no schedules; add one with tools/run.py --finetune --schedule "0 3 * * 1"')
        return
    rows = []
    for schedule in schedules:
        ticks = read_history(schedule.folder)
        rows.append((schedule, ticks, [*_clock_problems(schedule), *_overdue(schedule, ticks)]))
    now = datetime.now(host_zone()).replace(tzinfo=None)
    Console().print(schedules_table(rows, now))


def remove(name: str) -> None:
    """Stop a schedule and remove its history and logs; what it trained stays.

    Raises:
        ConfigError: There is no such schedule.
        SetupError: The clock cannot be stopped.
    """
    from llm_engineering.scheduling import clock
    from llm_engineering.scheduling.lock import schedule_lock
    from llm_engineering.scheduling.schedules import delete_schedule, read_schedule

    schedule = read_schedule(name)
    set_up_terminal()
    clock.remove(schedule)
    for line in clock.leftovers(schedule):
        click.secho(f"warning: the crontab may still call it: {line}", fg="yellow", err=True)
    with schedule_lock(schedule.folder) as lock:
        if lock is None:
            print(f"{name} will not start again. A run of it is going on: it may end, and leaves")
            print(f"its log; --unschedule {name} removes that afterwards")
            return
        delete_schedule(name)
    print(f"{name} is removed; what it trained stays")


def run_now(name: str, *, force: bool) -> None:
    """Do now what a schedule does at its times.

    Raises:
        ConfigError: There is no such schedule.
        ScheduledRunError: The run failed; recorded and told.
    """
    import os

    from llm_engineering.scheduling.schedules import read_schedule

    schedule = read_schedule(name)
    os.environ.update(schedule.environment)  # before any library looks at it
    set_up_terminal()
    from llm_engineering.scheduling.tick import run_tick

    print(f"logs      {schedule.folder}/logs", flush=True)
    tick = run_tick(schedule, force=force)
    print(f"{tick.outcome}: {tick.reason}")
    if tick.outcome == "succeeded":
        print(f"report    {tick.folders[-1]}/report.html")


def _check_target(config: FinetuningConfig, target: str) -> None:
    if target == "sagemaker":
        from llm_engineering.sagemaker.launch_order import sagemaker_settings

        sagemaker_settings(config)


def _clock_problems(schedule: Schedule) -> list[str]:
    from llm_engineering.scheduling import clock

    try:
        return clock.problems(schedule)
    except SetupError as error:
        return [f"{schedule.clock} cannot be asked: {error}"]


def _overdue(schedule: Schedule, ticks: list[Tick]) -> list[str]:
    """That calls which were due have not come, whatever keeps the clock from it."""
    from llm_engineering.scheduling.history import newest_start
    from llm_engineering.scheduling.missed import missed_calls
    from llm_engineering.scheduling.time_zone import host_zone

    now = datetime.now(UTC)
    before = newest_start(ticks, now, schedule.created)
    if before is None or schedule.clock == "orchestrator":
        return []
    due = missed_calls(schedule.cron, host_zone(), before, now)
    if not due:
        return []
    return [
        f"{len(due)} call(s) that were due have left no trace, the last at {due[-1]:%a %d %b %H:%M}: "
        "the clock or the host was off, or the call was killed"
    ]


def _not_kept(secret: list[str]) -> list[str]:
    """Which variables a scheduled run will not see, since no file may hold a secret."""
    if not secret:
        return []
    return [
        f"not kept for the scheduled runs, since they are secrets: {', '.join(secret)}; log in with "
        "each tool's own command (hf auth login, wandb login, an AWS profile)"
    ]


def _missing_input(config: FinetuningConfig) -> list[str]:
    """Why a run would fail if it began now; data may well come later."""
    from llm_engineering.scheduling.changes import take_inputs

    try:
        take_inputs(config)
    except FinetuningError as error:
        return [f"as things are, it would fail: {error}"]
    return []
