"""One attempt of a scheduled run: the fine-tuning command as a process of its own.

A crash, an OOM kill or ``kill -9`` of the training so leaves the caller standing, which records it,
tries again and raises the alarm.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from llm_engineering import errors
from llm_engineering.configuration.load import without_schedule
from llm_engineering.errors import ScheduledRunError
from llm_engineering.scheduling.schedules import ROOT, Schedule

GRACE_SECONDS = 300.0
"""A training that is asked to stop has so long for the step under way and its checkpoint."""

# What the user, not time, must mend. Everything else may be gone the next time.
_LASTING = {
    kind.exit_code
    for kind in (
        errors.ConfigError,
        errors.DataError,
        errors.DiskError,  # nothing but the next call's tidying up may make room
        errors.ModelError,
        errors.LoraError,
        errors.HardwareError,
        errors.SetupError,
        errors.TrainingError,  # a loss that is not finite is no other from the same checkpoint
        errors.LaunchError,
        errors.SecretError,
        errors.RegistryError,
    )
}


class RanTooLongError(ScheduledRunError):
    """An attempt went on for longer than ``schedule.max_run_seconds``."""


def run_attempt(
    schedule: Schedule,
    run: str,
    log: IO[bytes],
    locks: Sequence[int],
    max_seconds: float | None = None,
) -> int:
    """Fine-tune; the exit status, negative for the signal that ended it.

    Args:
        schedule: What to run.
        run: Name of the run.
        log: Receives all output.
        locks: The schedule's lock and the host's, which the process holds on to: were only this
            one killed, the next call must not start a second training beside the first.
        max_seconds: How long it may take.

    Raises:
        RanTooLongError: It took longer, and was stopped.
    """
    with _temporary_files(schedule) as folder:
        return _run(_command(schedule, run), folder, log, locks, max_seconds)


@contextmanager
def _temporary_files(schedule: Schedule) -> Iterator[Path]:
    """A folder for them that goes with the attempt: one that is killed cannot remove its own.

    Were this process killed too, the next attempt removes them; the schedule's lock is held.
    """
    folder = schedule.folder / "tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    command: list[str],
    temporary: Path,
    log: IO[bytes],
    locks: Sequence[int],
    max_seconds: float | None,
) -> int:
    process = subprocess.Popen(
        command,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=locks,
        # Ctrl-C in a terminal and a time-out reach all of it once, by way of this process.
        start_new_session=True,
    )
    try:
        return process.wait(max_seconds)
    except subprocess.TimeoutExpired:
        how = _stop(process)
        raise RanTooLongError(
            f"it did not end within schedule.max_run_seconds ({max_seconds:.0f} s), and was {how}; the "
            "next call goes on from its newest checkpoint"
        ) from None
    except BaseException:
        _stop(process)
        raise


def _command(schedule: Schedule, run: str) -> list[str]:
    command = [sys.executable, str(ROOT / "tools" / "run.py"), "--finetune"]
    command += ["--run-name", run, "--config", str(schedule.config_path)]
    for override in without_schedule(schedule.overrides):  # every user sees a command line
        command += ["--set", override]
    if schedule.target == "local":
        command += ["--resume=if-possible"]  # a SageMaker job resumes by itself
    return [*command, "--target", schedule.target]


def _stop(process: subprocess.Popen[bytes]) -> str:
    """Ask for a checkpoint, then end the process and all that it started; how it ended, in words."""
    try:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            return "asked to stop"
        return f"killed, since it did not stop within {GRACE_SECONDS:.0f} s of being asked to"
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def may_be_cured(status: int) -> bool:
    """Whether another attempt may succeed where one ended with this exit status."""
    return status not in _LASTING


def describe_failure(status: int, log: Path, begin: int = 0) -> str:
    """What an exit status means, with the error message from the log beyond byte ``begin``."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", perhaps for want of memory" if status == -signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    lines = [
        line.rstrip()
        for line in log.read_bytes()[begin:].decode(errors="replace").splitlines()
        if line.strip()
    ]
    begins = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    message = "\n".join(lines[begins[-1] :]) if begins else "\n".join(lines[-1:])
    return message.removeprefix("error: ") or f"exit status {status}, without a message"
