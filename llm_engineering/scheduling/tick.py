"""One call of a schedule: look what is new, train if anything is, record, tidy, raise the alarm."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path

from llm_engineering.configuration import FinetuningConfig, load_config
from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.errors import HubError, ScheduledRunError
from llm_engineering.outputs import UNPROVEN, work_folder
from llm_engineering.scheduling.attempt import describe_failure, may_be_cured, run_attempt
from llm_engineering.scheduling.changes import Inputs, take_inputs, what_changed
from llm_engineering.scheduling.heartbeat import send_heartbeat
from llm_engineering.scheduling.history import (
    Tick,
    append_tick,
    last_success,
    newest_start,
    read_history,
    shorten_history,
)
from llm_engineering.scheduling.host_queue import turn
from llm_engineering.scheduling.lock import schedule_lock
from llm_engineering.scheduling.notices import (
    OVERLAP,
    tell_failure,
    tell_it_is_over,
    tell_missed,
    tell_overlaps,
)
from llm_engineering.scheduling.retention import prune
from llm_engineering.scheduling.schedules import Schedule, write_schedule

logger = logging.getLogger(__name__)

Wait = Callable[[float], None]
_NOTHING_NEW = "nothing changed since the last success"


def run_tick(schedule: Schedule, *, force: bool = False, wait: Wait = time.sleep) -> Tick:
    """Do what a schedule is for, once.

    Args:
        schedule: The schedule.
        force: Train even if nothing changed.
        wait: Sleeps before another attempt, so many seconds.

    Raises:
        ScheduledRunError: It failed; recorded and told to the user, as far as possible.
    """
    tick = Tick(started=_now())
    with schedule_lock(schedule.folder) as lock:
        if lock is None:
            tick.reason = OVERLAP
            _record(schedule, tick, "skipped")
            tell_overlaps(schedule)
            return tick
        settings = schedule.settings
        try:
            os.chdir(schedule.working_directory)
            config = load_config(schedule.config_path, schedule.overrides)
            settings = config.schedule
            _remember(schedule, settings)
            tell_missed(schedule, settings, tick)
            changed = _look(config, schedule, tick, wait)
            if changed is None and not force:
                tick.reason = _NOTHING_NEW
                _record(schedule, tick, "skipped")
            else:
                tick.reason = changed or "forced, nothing changed"
                tick.output_dir = Path(config.run.output_dir).resolve()
                try:
                    _train(schedule, settings, tick, lock, wait)
                    _look_at_result(tick)
                    _record(schedule, tick, "succeeded")
                finally:
                    _tidy(schedule, settings, tick)
        except Exception as error:  # every failure, of any kind, is to be recorded and told
            reason = str(error) or type(error).__name__
            _fail(schedule, settings, tick, reason)
            raise ScheduledRunError(f"schedule {schedule.name} failed: {reason}") from error
        except BaseException:
            tick.reason = f"{tick.reason}; stopped on request".removeprefix("; ")
            _record(schedule, tick, "interrupted")
            raise
        tell_it_is_over(schedule, settings, tick)
    send_heartbeat(settings)
    return tick


def _remember(schedule: Schedule, settings: ScheduleSettings) -> None:
    """Keep how to raise an alert, for when the configuration cannot be read."""
    if schedule.settings != settings:
        write_schedule(schedule.model_copy(update={"settings": settings}))


def _look(config: FinetuningConfig, schedule: Schedule, tick: Tick, wait: Wait) -> str | None:
    """What changed since the last success, or None."""
    tick.inputs = _take_inputs(config, wait)
    last = last_success(read_history(schedule.folder))
    return what_changed(tick.inputs, last.inputs if last else None)


def _take_inputs(config: FinetuningConfig, wait: Wait) -> Inputs:
    for pause in _pauses(config.schedule):
        try:
            return take_inputs(config)
        except HubError as error:
            logger.info("%s; the next attempt in %d s", error, pause)
            wait(pause)
    return take_inputs(config)


def _train(
    schedule: Schedule, settings: ScheduleSettings, tick: Tick, lock: int, wait: Wait
) -> None:
    logs = schedule.folder / "logs"
    logs.mkdir(exist_ok=True)
    tick.log = f"{datetime.now():%Y%m%d-%H%M%S}.log"
    path = logs / tick.log
    queue = settings.queue if schedule.target == "local" else None
    with turn(queue, wait) as turns, path.open("ab", buffering=0) as log:
        for pause in [*_pauses(settings), None]:
            run = _name_of_run(schedule, tick)
            tick.runs.append(run)
            begin = log.tell()
            status = run_attempt(schedule, run, log, [lock, *turns], settings.max_run_seconds)
            if status == 0:
                return
            failure = describe_failure(status, path, begin)
            if pause is None or not may_be_cured(status):
                raise ScheduledRunError(failure)
            log.write(f"--- failed: {failure}; the next attempt in {pause} s\n".encode())
            wait(pause)


def _name_of_run(schedule: Schedule, tick: Tick) -> str:
    """A name that no run of the schedule had, whatever the clock does."""
    known = {run for each in read_history(schedule.folder) for run in each.runs} | {*tick.runs}
    first = f"{schedule.name}-{datetime.now():%Y%m%d-%H%M%S}"
    numbered = (f"{first}-{number}" for number in count(2))
    return next(name for name in chain([first], numbered) if name not in known)


def _pauses(settings: ScheduleSettings) -> list[int]:
    """Seconds before each further attempt: doubled each time."""
    return [settings.retry_wait_seconds * 2**attempt for attempt in range(settings.retries)]


def _look_at_result(tick: Tick) -> None:
    decision = tick.folders[-1] / "promotion.json"
    if decision.is_file():
        values = json.loads(decision.read_text(encoding="utf-8"))
        tick.promoted, tick.version = values["promoted"], values.get("version")
    tick.url = _dashboard_url(tick.runs[-1])


def _dashboard_url(run: str) -> str | None:
    from zenml.client import Client
    from zenml.utils.dashboard_utils import get_run_url

    try:
        return get_run_url(Client().get_pipeline_run(run))
    except Exception as error:  # a link is no reason to fail
        logger.info("no link to the run: %s", error)
        return None


def _tidy(schedule: Schedule, settings: ScheduleSettings, tick: Tick) -> None:
    """Old logs, outputs and lines of history; runs that were killed are failed in ZenML."""
    try:
        logs = sorted((schedule.folder / "logs").glob("*.log"))
        for log in logs[: -settings.keep_logs]:
            log.unlink()
        _prune(schedule, settings, tick)
        shorten_history(schedule.folder)
        if tick.output_dir is not None and tick.outcome != "succeeded":
            from llm_engineering.lineage.killed_runs import close_killed_runs

            close_killed_runs(work_folder(tick.output_dir))
    except Exception as error:  # what the run came to must not depend on it
        logger.warning("tidying up: %s", error)


def _prune(schedule: Schedule, settings: ScheduleSettings, tick: Tick) -> None:
    """Old outputs and abandoned work, and what ZenML has copied of them."""
    ticks = read_history(schedule.folder)
    others = [each for each in ticks if each.started != tick.started]
    before = newest_start(others, datetime.fromisoformat(tick.started))
    folders = prune(ticks, settings.retention, before=before.timestamp() if before else None)
    if folders:
        from llm_engineering.scheduling.store_copies import prune_copies

        runs = {folder.name.removesuffix(UNPROVEN) for folder in folders}
        copies = prune_copies(sorted(runs))
        logger.info("pruned %s; copies in ZenML: %d", ", ".join(map(str, folders)), copies)


def _fail(schedule: Schedule, settings: ScheduleSettings, tick: Tick, reason: str) -> None:
    cause, tick.reason = tick.reason, reason
    try:
        _record(schedule, tick, "failed")
    except OSError as error:  # a full disk, most likely: the user must hear of both
        reason += f"\nIt could not be recorded in {schedule.folder}: {error}"
    tell_failure(schedule, settings, tick, why=cause, reason=reason)


def _record(schedule: Schedule, tick: Tick, outcome: str) -> Tick:
    recorded = tick.model_copy(update={"outcome": outcome, "finished": _now()})
    append_tick(schedule.folder, recorded)
    tick.outcome, tick.finished = recorded.outcome, recorded.finished
    return tick


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
