"""An orchestrator of one process and one private folder a step."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from zenml.enums import ExecutionMode
from zenml.orchestrators import BaseOrchestrator, BaseOrchestratorConfig, BaseOrchestratorFlavor

from separate_hosts.host import be_a_host

RUN_ID = "SEPARATE_HOSTS_RUN"


class SeparateHostsConfig(BaseOrchestratorConfig):
    """Where hosts keep their disks, and what befalls them."""

    disks: str
    hidden: str = ""
    """A folder of the caller's that no host sees."""
    kill_at: int = 0
    """Kill the train step once, after a checkpoint of so many steps is in the store."""
    rehearsed: bool = False
    """Whether what the steps compute is made up."""
    restarts: int = 0
    """How often a killed step is started again, as a pod is."""


class SeparateHosts(BaseOrchestrator):
    """Starts the steps one after the other."""

    @property
    def supported_execution_modes(self) -> list[ExecutionMode]:
        return list(ExecutionMode)

    def get_orchestrator_run_id(self) -> str:
        return os.environ[RUN_ID]

    def submit_pipeline(
        self, snapshot, stack, base_environment, step_environments, placeholder_run=None
    ):
        run, config = str(uuid4()), self.config
        for name in snapshot.step_configurations:
            kill_at = config.kill_at if name == "train" else 0
            for attempt in range(1 + config.restarts):
                disk = tempfile.mkdtemp(prefix=f"{name}-", dir=config.disks)
                variables = {**base_environment, **step_environments[name], RUN_ID: run}
                if config.rehearsed:
                    variables["REHEARSED"] = "1"
                told = (name, str(snapshot.id), variables, disk, config.hidden, kill_at)
                process = _hosts(config.rehearsed).Process(target=be_a_host, args=told)
                with _nothing_left_in(config.hidden, disk):
                    process.start()
                    process.join()
                kill_at = 0
                if process.exitcode == 0:
                    break
                if attempt == config.restarts or process.exitcode != -signal.SIGKILL:
                    raise RuntimeError(f"the host of step {name} ended with {process.exitcode}")


class SeparateHostsFlavor(BaseOrchestratorFlavor):
    """Its flavour."""

    name = "separate_hosts"
    config_class = SeparateHostsConfig
    implementation_class = SeparateHosts


@contextmanager
def _nothing_left_in(folder: str, disk: str) -> Iterator[None]:
    """Where a host may not mount, what it made in the hidden folder still goes with its disk."""
    before = set(os.listdir(folder)) if folder and os.path.isdir(folder) else set()
    yield
    if folder and os.path.isdir(folder):
        for name in set(os.listdir(folder)) - before:
            shutil.move(os.path.join(folder, name), os.path.join(disk, "private", name))


def _hosts(rehearsed: bool) -> Any:
    """Hosts whose libraries are loaded already: each is forked of a process that did nothing else."""
    hosts = multiprocessing.get_context("forkserver")
    loaded = "rehearsal" if rehearsed else "preloaded"
    hosts.set_forkserver_preload([f"separate_hosts.{loaded}", "zenml.entrypoints"])
    return hosts
