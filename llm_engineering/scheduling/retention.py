"""Removing what old scheduled runs left, by the policy of ``schedule.retention``."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from llm_engineering.configuration.schedule import RetentionSettings
from llm_engineering.model.finetuning.checkpoints import is_running
from llm_engineering.outputs import unproven, work_folder
from llm_engineering.scheduling.history import Tick, last_success

logger = logging.getLogger(__name__)

_DAY = 86_400.0


def production_versions() -> set[str]:
    """Names of all production versions in ZenML, which are the names of their output folders."""
    from zenml.client import Client
    from zenml.enums import ModelStages
    from zenml.utils.pagination_utils import depaginate

    versions = depaginate(Client().list_model_versions, stage=ModelStages.PRODUCTION)
    return {str(version.name) for version in versions}


def prune(
    ticks: list[Tick],
    policy: RetentionSettings,
    *,
    now: float | None = None,
    production: Callable[[], set[str]] = production_versions,
) -> list[Path]:
    """Remove old outputs and checkpoints of a schedule's own runs; what was removed.

    Never removed: what no tick of this schedule made, its newest success, what ``latest`` points
    at, a production version, and what a process is still working on. If ZenML cannot say what is
    in production, nothing is removed.

    Args:
        ticks: The schedule's history.
        policy: What is kept.
        now: Seconds since the epoch; default: now.
        production: Asks for the names of the versions in production.
    """
    now = time.time() if now is None else now
    old = [
        *_old_outputs(ticks, policy, now),
        *_old_unproven(ticks, policy, now),
        *_old_checkpoints(ticks, policy, now),
    ]
    if not old:
        return []
    try:
        kept = production()
    except Exception as error:  # whatever keeps ZenML from answering
        logger.warning("nothing was pruned: ZenML cannot say what is in production (%s)", error)
        return []
    removed = [folder for folder in old if folder.name not in kept]
    for folder in removed:
        _remove(folder)
    return removed


def _old_outputs(ticks: list[Tick], policy: RetentionSettings, now: float) -> list[Path]:
    newest = last_success(ticks)
    folders = [folder for tick in ticks for folder in tick.folders if folder.is_dir()]
    beyond = folders[: -policy.keep_runs]
    return [
        folder
        for folder in beyond
        if now - folder.stat().st_mtime > policy.keep_days * _DAY
        and (newest is None or folder not in newest.folders)
        and (folder.parent / "latest").resolve() != folder.resolve()
    ]


def _old_unproven(ticks: list[Tick], policy: RetentionSettings, now: float) -> list[Path]:
    """Runs whose exports failed their proof: no success, so they go as interrupted ones do."""
    folders = [unproven(folder) for tick in ticks for folder in tick.folders]
    oldest = now - policy.keep_interrupted_days * _DAY
    return [folder for folder in folders if folder.is_dir() and folder.stat().st_mtime < oldest]


def _old_checkpoints(ticks: list[Tick], policy: RetentionSettings, now: float) -> list[Path]:
    outputs = [folder for tick in ticks for folder in tick.folders]
    folders = [work_folder(folder.parent) / folder.name for folder in outputs]
    return [
        folder
        for folder in folders
        if folder.is_dir()
        and now - _newest_change(folder) > policy.keep_interrupted_days * _DAY
        and not is_running(folder)
    ]


def _newest_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))


def _remove(folder: Path) -> None:
    """Out of sight first, so that an interrupted removal leaves no half output."""
    if folder.parent.name == ".work":
        shutil.rmtree(folder)
        return
    doomed = work_folder(folder.parent) / folder.name
    shutil.rmtree(doomed, ignore_errors=True)
    doomed.parent.mkdir(exist_ok=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)
