"""Processes that work on batches of rows; what comes of them is in order, whoever worked on it."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from llm_engineering.errors import DataError

logger = logging.getLogger(__name__)

BatchT = TypeVar("BatchT")
ResultT = TypeVar("ResultT")

ALONE_ROWS, ALONE_BYTES = 20_000, 10_000_000
"""So many rows, and bytes of text, are worked on in this process: for fewer, others would start too
late to help."""
_FEWEST_CORES = 3  # on two, this process and the threads of the tokenizer keep both busy
_AHEAD = 2  # batches a process that are on their way
# What each process needs, imported once in the server that the processes are forked from.
_PRELOADED = (
    *("numpy", "pyarrow", "rensa", "jinja2.sandbox", "transformers.tokenization_utils_tokenizers"),
    *("llm_engineering.data.select.near", "llm_engineering.data.objective_rows.preference_rows"),
    "llm_engineering.data.objective_rows.supervised_rows",
)

_UNKNOWN_ELSEWHERE = b"transformers_modules"  # where code is that came with a model

_task: tuple[str, Callable[[Any], Any]] | None = None  # of this process, if it is a worker


class Workers:
    """Maps functions over batches: here for few rows, in processes of their own for many.

    Processes are started when they are first needed, from a server without threads
    (``multiprocessing``'s forkserver): this process has threads by then, and is not forked. They
    import the main module anew, so that a script's main part stands behind ``__name__``'s test.
    """

    def __init__(self, processes: int | None = None) -> None:
        """Start nothing yet.

        Args:
            processes: How many, at most; None: one a core, if there are more than two.
        """
        cores = usable_cores()
        self.processes = processes or (cores if cores >= _FEWEST_CORES else 1)
        self._tasks: tempfile.TemporaryDirectory[str] | None = None
        self._pool: ProcessPoolExecutor | None = None

    def pays(self, rows: int, size: int) -> bool:
        """Whether so many rows, or so many bytes of them, are worth other processes."""
        return self.processes > 1 and (rows > ALONE_ROWS or size > ALONE_BYTES)

    def map(
        self, task: Callable[[BatchT], ResultT], batches: Iterable[BatchT], *, rows: int, size: int
    ) -> Iterator[tuple[BatchT, ResultT]]:
        """Each batch and what the task gives for it, in the order of the batches.

        Args:
            task: Without side effects; it is pickled if it goes to other processes.
            batches: Taken a few at a time.
            rows: In all batches, by which it is told whether other processes pay.
            size: Of their texts, in bytes, likewise.

        Raises:
            DataError: A process was ended from outside.
        """
        path = self._hand_over(task) if self.pays(rows, size) else None
        if path is None:
            for batch in batches:
                yield batch, task(batch)
            return
        pool = self._started()
        running: deque[tuple[BatchT, Future[ResultT]]] = deque()
        try:
            for batch in batches:
                running.append((batch, pool.submit(_work, str(path), batch)))
                if len(running) > self.processes * _AHEAD:
                    yield _first(running)
            while running:
                yield _first(running)
        except BrokenProcessPool:
            raise DataError(
                f"one of {self.processes} processes that prepare the data was ended from outside, "
                "most likely for want of memory; set data.num_proc lower (1: this process alone)"
            ) from None
        finally:
            for _, future in running:
                future.cancel()

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        if self._tasks is not None:
            self._tasks.cleanup()
            self._tasks = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hand_over(self, task: Callable[[BatchT], ResultT]) -> Path | None:
        """Where the processes find the task; None if it cannot be pickled."""
        try:
            pickled = pickle.dumps(task)
        except (pickle.PicklingError, AttributeError, TypeError):
            pickled = _UNKNOWN_ELSEWHERE
        if _UNKNOWN_ELSEWHERE in pickled:
            logger.info("one process prepares the data: others could not be given %r", task)
            return None
        if self._tasks is None:
            self._tasks = tempfile.TemporaryDirectory()
        handle, name = tempfile.mkstemp(dir=self._tasks.name)
        with os.fdopen(handle, "wb") as file:
            file.write(pickled)
        return Path(name)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            import multiprocessing

            known = multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context(
                "forkserver" if "forkserver" in known else "spawn"
            )
            context.set_forkserver_preload(list(_PRELOADED))
            self._pool = ProcessPoolExecutor(self.processes, context, _begin)
        return self._pool


def usable_cores() -> int:
    """Cores that this process may use: as scheduled, and as the container's quota says."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return cores


def _first(running: deque[tuple[BatchT, Future[ResultT]]]) -> tuple[BatchT, ResultT]:
    batch, future = running[0]
    result = future.result()
    running.popleft()
    return batch, result


def _begin() -> None:
    """In a new process: an interruption is the parent's to handle, and one thread is enough."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1")


def _work(path: str, batch: Any) -> Any:
    global _task
    if _task is None or _task[0] != path:
        _task = (path, pickle.loads(Path(path).read_bytes()))  # noqa: S301 (ours)
    return _task[1](batch)
