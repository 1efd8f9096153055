"""Checkpoints in the artifact store, for train steps whose disk ends with them.

``<artifact store>/finetuning_checkpoints/<run>/`` holds what a run's work folder does: its identity,
and the newest complete checkpoint. As on a disk, the list of a checkpoint's files is written last.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zenml.client import Client
from zenml.io import fileio
from zenml.utils import io_utils

from llm_engineering.model.finetuning.checkpoints import COMPLETE, IDENTITY, newest_checkpoint

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 2.0
_LONGEST_PAUSE_S = 120.0


class StoredCheckpoints:
    """The checkpoints in the active stack's artifact store."""

    def __init__(self) -> None:
        path = Client().active_stack.artifact_store.path
        self._root = f"{path.rstrip('/')}/finetuning_checkpoints"

    def bring(self, work: Path, run: str, identity: dict[str, str], *, others: bool) -> None:
        """As ``CheckpointStore.bring``; the newest of all that are equal comes."""
        found: list[tuple[int, str, str]] = []
        for name in self._runs():
            is_own = name == run
            if (is_own or (others and _has_ended(name))) and self._identity(name) == identity:
                found += [(step, name, one) for step, one in self._complete(name)]
        if not found:
            return
        step, name, checkpoint = max(found)
        folder = work / name / "checkpoints" / checkpoint
        if folder.is_dir():
            return
        logger.info("bringing the checkpoint of step %d of %s from the artifact store", step, name)
        io_utils.copy_dir(f"{self._root}/{name}/{checkpoint}", str(folder), overwrite=True)
        (work / name / IDENTITY).write_text(json.dumps(identity), encoding="utf-8")

    @contextmanager
    def keeping(self, run: Path) -> Iterator[None]:
        """As ``CheckpointStore.keeping``: a thread copies; on leaving, the newest is there too."""
        over = threading.Event()
        thread = threading.Thread(target=self._keep, args=(run, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._copy_newest(run)

    def remove(self, *runs: str) -> None:
        """Remove the checkpoints of runs that are finished, or that a finished one continued."""
        for run in runs:
            if fileio.exists(f"{self._root}/{run}"):
                fileio.rmtree(f"{self._root}/{run}")

    def _keep(self, run: Path, over: threading.Event) -> None:
        pause = _SECONDS_BETWEEN_LOOKS
        while not over.wait(pause):
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            if self._copy_newest(run):
                pause = _SECONDS_BETWEEN_LOOKS

    def _copy_newest(self, run: Path) -> bool:
        """Copy the newest checkpoint if it is not there, and remove those before it.

        Returns:
            Whether nothing went wrong; training goes on all the same.
        """
        checkpoint = newest_checkpoint(run)
        if checkpoint is None:
            return True
        stored = f"{self._root}/{run.name}"
        target = f"{stored}/{checkpoint.folder.name}"
        try:
            if fileio.exists(f"{target}/{COMPLETE}"):
                return True
            for path in sorted(
                checkpoint.folder.rglob("*"), key=lambda path: path.name == COMPLETE
            ):
                if path.is_file():
                    _copy(path, f"{target}/{path.relative_to(checkpoint.folder).as_posix()}")
            _copy(run / IDENTITY, f"{stored}/{IDENTITY}")
            for step, older in self._complete(run.name):
                if step < checkpoint.step:
                    fileio.rmtree(f"{stored}/{older}")
        except Exception as error:  # whatever the store's client raises
            logger.warning(
                "the checkpoint of step %d is not in the artifact store (%s: %s); trying again",
                checkpoint.step, type(error).__name__, error,
            )  # fmt: skip
            return False
        logger.info("the checkpoint of step %d is in the artifact store", checkpoint.step)
        return True

    def _runs(self) -> list[str]:
        return _names(self._root) if fileio.exists(self._root) else []

    def _identity(self, run: str) -> dict[str, str] | None:
        path = f"{self._root}/{run}/{IDENTITY}"
        if not fileio.exists(path):
            return None
        with fileio.open(path, "r") as file:
            identity: dict[str, str] = json.loads(file.read())
        return identity

    def _complete(self, run: str) -> list[tuple[int, str]]:
        """Steps and names of a run's complete checkpoints."""
        folder = f"{self._root}/{run}"
        return [
            (int(name.rsplit("-", 1)[1]), name)
            for name in _names(folder)
            if name.startswith("checkpoint-") and fileio.exists(f"{folder}/{name}/{COMPLETE}")
        ]


def _has_ended(run: str) -> bool:
    """Whether ZenML knows a run as finished: on another host nothing else tells that it is alive."""
    try:
        return bool(Client().get_pipeline_run(run, hydrate=False).status.is_finished)
    except KeyError:
        return True


def _names(folder: str) -> list[str]:
    return [str(name).rstrip("/").rsplit("/", 1)[-1] for name in fileio.listdir(folder)]


def _copy(path: Path, uri: str) -> None:
    fileio.makedirs(uri.rsplit("/", 1)[0])
    fileio.copy(str(path), uri, overwrite=True)
