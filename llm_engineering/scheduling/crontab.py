"""One line in the user's crontab for each schedule; every other line stays as it is.

The crontab is edited as text. python-crontab parses and writes anew all lines: it turned ``\\%``
into ``%`` in commands of other lines, and moved ``MAILTO`` to the top.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from llm_engineering.errors import ConfigError, SetupError
from llm_engineering.scheduling.schedules import ROOT, Schedule, former_root

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
    _write([*_others(_read(), schedule), crontab_line(schedule)])


def remove(schedule: Schedule) -> None:
    """Take a schedule's line out of the crontab, also where it was edited or this folder moved.

    Raises:
        SetupError: The crontab cannot be read or written.
    """
    lines = _read()
    others = _others(lines, schedule)
    if others != lines:
        _write(others)


def problem(schedule: Schedule) -> str | None:
    """Why the crontab will not call the schedule as it was asked for; None if it will.

    Raises:
        SetupError: The crontab cannot be read.
    """
    lines = _read()
    ours = [line for line in lines if line not in _others(lines, schedule)]
    active = [line for line in ours if not line.lstrip().startswith("#")]
    if not active:
        return "the crontab has no line of it"
    if crontab_line(schedule) not in active:
        return f"its line in the crontab was edited: {active[-1]}"
    if len(active) > 1:
        return f"the crontab has {len(active)} lines of it"
    return None


def leftovers(schedule: Schedule) -> list[str]:
    """Lines that call a schedule of this name by a path that is none, or none of another checkout's.

    Raises:
        SetupError: The crontab cannot be read.
    """
    call = re.compile(rf"--run-scheduled {re.escape(schedule.name)}(?:\s|$)")
    other = re.compile(r"(/\S+)/tools/run\.py")
    found = [line for line in _read() if call.search(line) and not line.lstrip().startswith("#")]
    programs = {line: other.search(line) for line in found}
    return [line for line, path in programs.items() if path is None or not Path(path[1]).is_dir()]


def crontab_line(schedule: Schedule) -> str:
    """The line: absolute paths, and nothing on standard output, which cron would mail.

    Standard error stays: where the host can mail, cron mails what went wrong.
    """
    command = shlex.join(
        [sys.executable, str(ROOT / "tools" / "run.py"), "--run-scheduled", schedule.name]
    )
    # cron reads an unescaped % as the end of the command.
    return f"{schedule.cron} {command} >/dev/null {_mark(schedule.name, ROOT)}".replace("%", r"\%")


def _mark(name: str, root: Path) -> str:
    """The comment by which a line is known: a checkout's schedule of this name."""
    return f"# schedule {name} of {root}"


def _others(lines: list[str], schedule: Schedule) -> list[str]:
    """The lines that are not the schedule's: it is known by its mark, or by the command that it calls."""
    roots = {ROOT, former_root(schedule) or ROOT}
    known = [re.escape(f"{_mark(schedule.name, root)}") + "$" for root in roots]
    for root in roots:
        program = shlex.quote(str(root / "tools" / "run.py"))
        known.append(rf"{re.escape(program)} --run-scheduled {re.escape(schedule.name)}(?:\s|$)")
    pattern = re.compile("|".join(known))
    return [line for line in lines if not pattern.search(line.replace(r"\%", "%").rstrip())]


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
