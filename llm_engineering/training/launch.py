"""Training on several ranks: started, watched and ended by torch.distributed's elastic agent."""

from __future__ import annotations

import contextvars
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.distributed.placement import RENDEZVOUS_PORT, Placement
from llm_engineering.distributed.world import SHARDED
from llm_engineering.model.base_model import file_digest, relocations
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_WEIGHTS
from llm_engineering.model.finetuning.progress import ProgressDisplay
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.training.attempt import Attempt
from llm_engineering.training.failure import first_cause
from llm_engineering.training.messages import ADDRESS, STOP, receive
from llm_engineering.training.rank import RECORD, RankOrder

if TYPE_CHECKING:
    from llm_engineering.training.production import ProductionAdapter

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]


def train_on_ranks(
    attempt: Attempt,
    placement: Placement,
    production: ProductionAdapter | None = None,
    on_progress: Callable[[TrainingRecord], None] | None = None,
    stop: threading.Event | None = None,
) -> tuple[AdapterFolder, TrainingRecord]:
    """Train and evaluate on this host's ranks, and wait for them.

    Args:
        attempt: The training.
        placement: How many ranks run here, and which other hosts train with them.
        production: To be measured on the same held-out rows.
        on_progress: Called with the record so far at every logged step.
        stop: Once set, the ranks save a checkpoint and end.

    Returns:
        Adapter and record, with the evaluation in it; on another host than the first nothing of
        worth.

    Raises:
        FinetuningError: What a rank raised; or that one failed or was killed, and how.
        torch.OutOfMemoryError: A rank's GPU was too small for the plan.
    """
    folder = attempt.folder / "ranks"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(attempt.adapter, ignore_errors=True)
    folder.mkdir(parents=True)
    order = RankOrder(
        attempt=attempt,
        folder=folder,
        relocated=relocations(),
        production=None if production is None else folder / "production",
    )
    if production is not None:
        production.write(folder / "production")
    path = folder / "order.json"
    path.write_text(order.model_dump_json(), encoding="utf-8")
    with (
        ThreadPoolExecutor(1) as executor,
        _connected(attempt.record, on_progress, stop) as (address, problems),
    ):
        # In a thread the agent leaves alone how this process handles signals. An interrupt here
        # ends the connections, these the ranks, and these the agent.
        exit_codes = executor.submit(_run_agent, attempt, placement, path, address).result()
    if problems:
        raise problems[0]
    if exit_codes is not None:
        raise first_cause(folder, placement.ranks, exit_codes)
    if not placement.is_first_host:
        return AdapterFolder(attempt.adapter, ""), attempt.record
    record = TrainingRecord.model_validate_json((folder / RECORD).read_bytes())
    digest = file_digest(attempt.adapter / ADAPTER_WEIGHTS)
    return AdapterFolder(attempt.adapter, digest), record


def _run_agent(
    attempt: Attempt, placement: Placement, order: Path, address: str
) -> dict[int, int] | None:
    """Run the agent to its end; the exit codes of the ranks that failed by themselves, or None."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    alone = len(placement.hosts) == 1
    config = LaunchConfig(
        min_nodes=len(placement.hosts),
        max_nodes=len(placement.hosts),
        nproc_per_node=placement.ranks_per_host,
        run_id=attempt.folder.name,
        rdzv_backend="c10d" if alone else "static",
        rdzv_endpoint="127.0.0.1:0" if alone else f"{placement.hosts[0]}:{RENDEZVOUS_PORT}",
        rdzv_configs={} if alone else {"rank": placement.host, "timeout": 900},
        local_addr="127.0.0.1" if alone else None,
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(log_dir=str(order.parent), redirects=Std.ALL),
    )
    command = ("-m", "llm_engineering.training.rank", str(order))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we tell it better
    with _environment(attempt, placement, address):
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            return {rank: failure.exitcode for rank, failure in error.failures.items()}
    return None


@contextmanager
def _environment(attempt: Attempt, placement: Placement, address: str) -> Iterator[None]:
    """The variables that ranks inherit from this process; it has its own back afterwards."""
    threads = max(1, (os.cpu_count() or 1) // placement.ranks_per_host)
    path = os.environ.get("PYTHONPATH")
    wanted = {
        ADDRESS: address,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT),
        "PYTHONFAULTHANDLER": "1",
    }
    if attempt.plan.sharded:
        wanted[SHARDED] = "1"
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _connected(
    record: TrainingRecord,
    on_progress: Callable[[TrainingRecord], None] | None,
    stop: threading.Event | None,
) -> Iterator[tuple[str, list[BaseException]]]:
    """Listen to the ranks; yields the socket's path, and what went wrong here in listening."""
    problems: list[BaseException] = []
    connections: list[Connection[Any, Any]] = []
    display = ProgressDisplay()
    over = threading.Event()

    def hear(connection: Connection[Any, Any]) -> None:
        try:
            while True:
                receive(connection.recv(), record, display, on_progress)
        except (EOFError, OSError):
            return  # the rank has ended
        except BaseException as error:
            problems.append(error)
            connection.close()  # which ends the rank, and so all of them

    def accept() -> None:
        while not over.is_set():
            try:
                connection = listener.accept()
            except OSError:
                return
            connections.append(connection)
            _thread(hear, connection)
            if stop is not None and stop.is_set():  # before this rank was there to be asked
                connection.send(STOP)

    def forward_stop(stop: threading.Event) -> None:
        stop.wait()
        for connection in connections:
            if not over.is_set():
                connection.send(STOP)

    # A socket's path has at most 107 characters (unix(7)), which TMPDIR alone may exceed.
    short = "/tmp" if len(tempfile.gettempdir()) > 60 else None  # noqa: S108 (a fresh folder in it)
    with tempfile.TemporaryDirectory(prefix="ranks-", dir=short) as folder:
        address = os.path.join(folder, "socket")
        with Listener(address, family="AF_UNIX") as listener:
            _thread(accept)
            if stop is not None:
                _thread(forward_stop, stop)
            try:
                yield address, problems
            finally:
                over.set()
                display.stop()
                for connection in connections:
                    connection.close()


def _thread(target: Callable[..., None], *arguments: Any) -> None:
    """Run in a thread that sees this one's context: ZenML's logs and metadata are the step's."""
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(target, *arguments), daemon=True).start()
