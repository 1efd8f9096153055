"""Removing what old runs left, by the policy of ``schedule.retention``; and why the rest stays."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from llm_engineering.configuration.schedule import RetentionSettings
from llm_engineering.lineage.killed_runs import is_marked
from llm_engineering.model.finetuning.checkpoints import is_running
from llm_engineering.outputs import unproven, work_folder
from llm_engineering.scheduling.history import Tick, last_success

logger = logging.getLogger(__name__)

_DAY = 86_400.0
GOES = ""
"""The reason of what does not stay."""


class Verdict(NamedTuple):
    """A folder, and why it stays; ``GOES`` if it does not."""

    folder: Path
    reason: str


def versions_in_use() -> dict[str, str]:
    """Names of the versions in production and of those that a rollback puts back, and which they are.

    A version has the name of its output folder.
    """
    from zenml.client import Client
    from zenml.enums import ModelStages
    from zenml.utils.pagination_utils import depaginate

    from llm_engineering.registry.versions import REPLACED

    used: dict[str, str] = {}
    listed = depaginate(Client().list_model_versions, stage=ModelStages.PRODUCTION, hydrate=True)
    for version in listed:
        former = version.run_metadata.get(REPLACED)
        if former:
            used.setdefault(str(former), "rollback target")
        used[str(version.name)] = "production"
    return used


def judge(
    ticks: list[Tick], policy: RetentionSettings, used: dict[str, str], now: float
) -> list[Verdict]:
    """What of a schedule's runs and of all unfinished work beside them stays, and what goes.

    Args:
        ticks: The schedule's history.
        policy: What is kept.
        used: ``versions_in_use``.
        now: Seconds since the epoch.
    """
    verdicts = [*_outputs(ticks, policy, now), *_unproven(ticks, policy, now)]
    verdicts += _work(ticks, policy, now)
    used = used | _promoted(ticks)
    return [
        Verdict(
            one.folder, used.get(one.folder.name, one.reason) if one.reason == GOES else one.reason
        )
        for one in verdicts
    ]


def prune(
    ticks: list[Tick],
    policy: RetentionSettings,
    *,
    before: float | None = None,
    now: float | None = None,
    in_use: Callable[[], dict[str, str]] = versions_in_use,
) -> list[Path]:
    """Remove old outputs of a schedule's own runs, and abandoned work beside them; what was removed.

    Never removed: finished runs that no tick of this schedule made, its newest success, what
    ``latest`` points at, a production version, its rollback target, and what a process is still
    working on. If ZenML cannot say what is in production, nothing is removed; nor after a gap of
    days between calls, since a clock that jumped would make all look old: the next call does it.

    Args:
        ticks: The schedule's history.
        policy: What is kept.
        before: When the call before this one came, seconds since the epoch; None: there was none.
        now: Seconds since the epoch; default: now.
        in_use: Asks for the versions in production and their rollback targets.
    """
    now = time.time() if now is None else now
    if before is not None and not 0 <= now - before <= policy.keep_interrupted_days * _DAY:
        logger.info(
            "nothing is pruned: the clock jumped, or calls were missed; the next call does it"
        )
        return []
    if not any(one.reason == GOES for one in judge(ticks, policy, {}, now)):
        return []
    try:
        used = in_use()
    except Exception as error:  # whatever keeps ZenML from answering
        logger.warning("nothing was pruned: ZenML cannot say what is in production (%s)", error)
        return []
    removed = [one.folder for one in judge(ticks, policy, used, now) if one.reason == GOES]
    for folder in removed:
        _remove(folder)
    return removed


def _outputs(ticks: list[Tick], policy: RetentionSettings, now: float) -> Iterator[Verdict]:
    newest = last_success(ticks)
    folders = [folder for tick in ticks for folder in tick.folders if folder.is_dir()]
    beyond = folders[: -policy.keep_runs]
    for folder in folders:
        if newest is not None and folder in newest.folders:
            yield Verdict(folder, "newest success")
        elif (folder.parent / "latest").resolve() == folder.resolve():
            yield Verdict(folder, "latest")
        elif folder not in beyond:
            yield Verdict(folder, f"newest {policy.keep_runs}")
        elif now - folder.stat().st_mtime <= policy.keep_days * _DAY:
            yield Verdict(folder, f"younger than {policy.keep_days} d")
        else:
            yield Verdict(folder, GOES)


def _promoted(ticks: list[Tick]) -> dict[str, str]:
    """The newest two runs that became production, whatever a ZenML says that may be another's."""
    promoted = [tick.runs[-1] for tick in ticks if tick.promoted and tick.runs]
    return dict.fromkeys(promoted[-2:], "promoted by this schedule")


def _unproven(ticks: list[Tick], policy: RetentionSettings, now: float) -> Iterator[Verdict]:
    """Runs whose exports failed their proof: no success, so they go as interrupted ones do."""
    days = policy.keep_interrupted_days
    for folder in (unproven(folder) for tick in ticks for folder in tick.folders):
        if folder.is_dir():
            is_young = now - folder.stat().st_mtime <= days * _DAY
            yield Verdict(folder, f"younger than {days} d" if is_young else GOES)


def _work(ticks: list[Tick], policy: RetentionSettings, now: float) -> Iterator[Verdict]:
    """What is left of unfinished runs, whoever started them: nobody has come back to them."""
    days = policy.keep_interrupted_days
    for work in sorted({work_folder(tick.output_dir) for tick in ticks if tick.output_dir}):
        for folder in sorted(path for path in work.glob("*") if path.is_dir()):
            if now - _newest_change(folder) <= days * _DAY:
                yield Verdict(folder, f"younger than {days} d")
            elif is_running(folder) or is_marked(work, folder.name):
                yield Verdict(folder, "running")
            else:
                yield Verdict(folder, GOES)


def _newest_change(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))


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
