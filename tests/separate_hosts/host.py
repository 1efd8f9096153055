"""A host: a process that runs one step, and sees nothing of its caller's disk."""

from __future__ import annotations

import ctypes
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

from separate_hosts import be_importable

_NEW_MOUNTS, _BIND, _PRIVATE, _RECURSIVE = 0x20000, 0x1000, 0x40000, 0x4000


def be_a_host(
    step: str, snapshot: str, variables: dict[str, str], disk: str, hidden: str, kill_at: int
) -> None:
    """Run one step, seeing nothing of its caller's but the models, the data and the store."""
    be_importable()
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
