"""Runs whose process was killed, which ZenML would show as running for ever."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_engineering.lineage.store import holding_store

logger = logging.getLogger(__name__)

_SUFFIX = ".running"
_REASON = "Its process was killed, or its host went down."


@contextmanager
def marked_as_running(work: Path, run: str) -> Iterator[None]:
    """Hold a lock beside the run's work folder for as long as this process works on it.

    It stays where ZenML did not hear of the run's end, for ``close_killed_runs`` to tell it.
    """
    work.mkdir(parents=True, exist_ok=True)
    mark = work / f"{run}{_SUFFIX}"
    with holding_store(), mark.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if _knows_its_end(run):
                mark.unlink(missing_ok=True)


def _knows_its_end(run: str) -> bool:
    """Whether no run of that name goes on in ZenML; false if ZenML cannot be asked."""
    from zenml.client import Client

    try:
        found = Client().list_pipeline_runs(name=run, size=1, hydrate=False)
        return all(one.status.is_finished for one in found)
    except Exception as error:  # whatever it is, the end of the run is told later
        logger.warning(
            "ZenML cannot be asked whether %s has ended (%s); the next command tells it",
            run, type(error).__name__,
        )  # fmt: skip
        return False


def close_killed_runs(work: Path) -> list[str]:
    """Mark runs as failed in ZenML if their mark is there and no process holds it; their names."""
    closed = []
    for mark in sorted(work.glob(f"*{_SUFFIX}")):
        if not _is_held(mark):
            run = mark.name.removesuffix(_SUFFIX)
            _mark_as_failed(run)
            mark.unlink(missing_ok=True)
            closed.append(run)
    return closed


def is_marked(work: Path, run: str) -> bool:
    """Whether a process works on a run now."""
    mark = work / f"{run}{_SUFFIX}"
    return mark.exists() and _is_held(mark)


def _is_held(mark: Path) -> bool:
    try:
        with mark.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _mark_as_failed(name: str) -> None:
    from zenml.client import Client
    from zenml.enums import ExecutionStatus
    from zenml.orchestrators.publish_utils import (
        publish_pipeline_run_status_update,
        publish_step_run_status_update,
    )

    for run in Client().list_pipeline_runs(name=name, size=1):
        if run.status.is_finished:
            continue
        for step in run.steps.values():
            if not step.status.is_finished:
                publish_step_run_status_update(step.id, ExecutionStatus.FAILED)
        publish_pipeline_run_status_update(run.id, ExecutionStatus.FAILED, status_reason=_REASON)
        logger.info("%s was killed: it is failed in ZenML now", name)
