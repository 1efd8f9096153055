"""An orchestrator of one process and one private folder a step."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from zenml.enums import ExecutionMode
from zenml.orchestrators import BaseOrchestrator, BaseOrchestratorConfig, BaseOrchestratorFlavor

RUN_ID = "SEPARATE_HOSTS_RUN"
_NEW_MOUNTS, _BIND, _PRIVATE, _RECURSIVE = 0x20000, 0x1000, 0x40000, 0x4000


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


def _hosts(rehearsed: bool) -> Any:
    """Hosts whose libraries are loaded already: each is forked of a process that did nothing else."""
    hosts = multiprocessing.get_context("forkserver")
    loaded = "rehearsal" if rehearsed else "preloaded"
    hosts.set_forkserver_preload([f"separate_hosts.{loaded}", "zenml.entrypoints"])
    return hosts


def be_a_host(
    step: str, snapshot: str, variables: dict[str, str], disk: str, hidden: str, kill_at: int
) -> None:
    """Run one step, seeing nothing of its caller's but the models, the data and the store."""
    os.environ.update(variables, TMPDIR=disk)
    tempfile.tempdir = None
    os.chdir(disk)
    log = os.open("log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if hidden:
        _hide(hidden, disk)
    if os.environ.get("REHEARSED"):
        from separate_hosts import rehearsal

        rehearsal.install(setattr)
    else:
        _note_loads(Path(disk, "loaded"))
    if kill_at:
        os.environ["REHEARSED_DEATH"] = "1"
        _die_after_checkpoint(kill_at)
    from zenml.entrypoints import StepEntrypointConfiguration

    arguments = StepEntrypointConfiguration.get_entrypoint_arguments(
        step_name=step, snapshot_id=snapshot
    )
    StepEntrypointConfiguration(arguments=arguments).run()


def _hide(folder: str, disk: str) -> None:
    """Put a private folder in the place of a shared one; without the right to, it must not be there."""
    libc = ctypes.CDLL(None, use_errno=True)
    private = Path(disk, "private")
    private.mkdir()
    Path(folder).mkdir(exist_ok=True)
    done = (
        libc.unshare(_NEW_MOUNTS) == 0
        and libc.mount(None, b"/", None, _PRIVATE | _RECURSIVE, None) == 0
        and libc.mount(os.fsencode(private), os.fsencode(folder), None, _BIND, None) == 0
    )
    if not done and any(Path(folder).iterdir()):
        raise OSError(ctypes.get_errno(), f"{folder} cannot be hidden")


def _note_loads(note: Path) -> None:
    """Leave a note where this process opens a model's weights."""
    import transformers.modeling_utils as modeling

    real = modeling.safe_open

    def noting(path: Any, *args: Any, **kwargs: Any) -> Any:
        note.touch()
        return real(path, *args, **kwargs)

    modeling.safe_open = noting


def _die_after_checkpoint(step: int) -> None:
    from llm_engineering.lineage import stored_checkpoints
    from llm_engineering.lineage.stored_checkpoints import StoredCheckpoints

    real = StoredCheckpoints._copy_newest

    def copy_and_die(self: StoredCheckpoints, run: Path) -> bool:
        copied = real(self, run)
        if any(done >= step for done, _ in self._complete(run.name)):
            os.kill(os.getpid(), signal.SIGKILL)
        return copied

    stored_checkpoints._SECONDS_BETWEEN_LOOKS = 0.02
    StoredCheckpoints._copy_newest = copy_and_die
