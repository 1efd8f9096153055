"""One attempt of a scheduled run: the fine-tuning command as a process of its own.

A crash, an OOM kill or ``kill -9`` of the training so leaves the caller standing, which records it,
tries again and raises the alarm.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from llm_engineering import errors
from llm_engineering.scheduling.schedules import ROOT, Schedule

# What the user, not time, must mend. Everything else may be gone the next time.
_LASTING = {
    kind.exit_code
    for kind in (
        errors.ConfigError,
        errors.DataError,
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


def run_attempt(schedule: Schedule, run: str, log: IO[bytes], lock: int) -> int:
    """Fine-tune; the exit status, negative for the signal that ended it.

    Args:
        schedule: What to run.
        run: Name of the run.
        log: Receives all output.
        lock: The schedule's lock, which the process holds on to: were only this one killed,
            the next call must not start a second training beside the first.
    """
    command = [sys.executable, str(ROOT / "tools" / "run.py"), "--finetune"]
    command += ["--run-name", run, "--config", str(schedule.config_path)]
    for override in schedule.overrides:
        command += ["--set", override]
    if schedule.target == "local":
        command += ["--resume=if-possible"]  # a SageMaker job resumes by itself
    command += ["--target", schedule.target]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock]
    )
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)  # as Ctrl-C does: the command says how to go on
        process.wait()
        raise


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
