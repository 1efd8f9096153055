"""One line in the user's crontab for each schedule; every other line stays as it is.

The crontab is edited as text. python-crontab parses and writes anew all lines: it turned ``\\%``
into ``%`` in commands of other lines, and moved ``MAILTO`` to the top.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

from llm_engineering.errors import ConfigError, SetupError
from llm_engineering.scheduling.schedules import ROOT, Schedule

_DAEMONS = {"cron", "crond", "fcron", "busybox"}


def is_available() -> bool:
    """Whether this host has cron."""
    return shutil.which("crontab") is not None


def daemon_runs() -> bool:
    """Whether a cron daemon is seen to run; without one a crontab does nothing."""
    import psutil

    return any(process.info["name"] in _DAEMONS for process in psutil.process_iter(["name"]))


def install(schedule: Schedule) -> None:
    """Put a schedule's line into the crontab, in place of an older one of the same name.

    Raises:
        ConfigError: cron does not take the line.
        SetupError: The crontab cannot be read or written.
    """
    _write([*_others(_read(), schedule.name), crontab_line(schedule)])


def remove(name: str) -> None:
    """Take a schedule's line out of the crontab.

    Raises:
        SetupError: The crontab cannot be read or written.
    """
    lines = _read()
    others = _others(lines, name)
    if others != lines:
        _write(others)


def crontab_line(schedule: Schedule) -> str:
    """The line: absolute paths, and nothing on standard output, which cron would mail.

    Standard error stays: where the host can mail, cron mails what went wrong.
    """
    command = shlex.join(
        [sys.executable, str(ROOT / "tools" / "run.py"), "--run-scheduled", schedule.name]
    )
    # cron reads an unescaped % as the end of the command.
    return f"{schedule.cron} {command} >/dev/null {_mark(schedule.name)}".replace("%", r"\%")


def _mark(name: str) -> str:
    """The comment by which a line is known: this checkout's schedule of this name."""
    return f"# schedule {name} of {ROOT}"


def _others(lines: list[str], name: str) -> list[str]:
    mark = f" {_mark(name)}".replace("%", r"\%")
    return [line for line in lines if not line.endswith(mark)]


def _read() -> list[str]:
    done = _crontab("-l")
    if done.returncode == 0:
        return done.stdout.splitlines()
    if "no crontab for" in done.stderr:
        return []
    raise SetupError(f"crontab -l: {done.stderr.strip()}; schedules need a crontab of your own")


def _write(lines: list[str]) -> None:
    if not lines:
        _crontab("-r")
        return
    done = _crontab("-", text="".join(f"{line}\n" for line in lines))
    if done.returncode != 0:
        reason = done.stderr.replace('"-":', "line ").strip()
        if "bad " in reason:
            raise ConfigError(f"--schedule: cron does not take it: {reason}")
        raise SetupError(f"crontab: cannot be written: {reason}")


def _crontab(argument: str, *, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["crontab", argument], input=text, capture_output=True, text=True)
