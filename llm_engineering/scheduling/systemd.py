"""A systemd user timer for each schedule; it catches up on what was missed while the host was off."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from llm_engineering.errors import SetupError
from llm_engineering.scheduling.attempt import GRACE_SECONDS
from llm_engineering.scheduling.cron_expression import to_calendar
from llm_engineering.scheduling.schedules import ROOT, Schedule, former_root


def is_available() -> bool:
    """Whether a systemd user manager really runs, not only its programs are installed."""
    if shutil.which("systemctl") is None:
        return False
    return _systemctl("show-environment").returncode == 0


def lingers() -> bool:
    """Whether the user's timers run while the user is not logged in."""
    user = getpass.getuser()
    done = subprocess.run(
        ["loginctl", "show-user", user, "--property=Linger"], capture_output=True, text=True
    )
    return done.stdout.strip() == "Linger=yes"


def install(schedule: Schedule) -> None:
    """Write the units and start the timer.

    Raises:
        SetupError: systemd does not take them.
    """
    folder = units_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in units(schedule).items():
        (folder / file).write_text(text, encoding="utf-8")
    _require("daemon-reload")
    # Restarted, since an enabled timer whose times change would go on by the old ones.
    _require("enable", f"{unit_name(schedule.name)}.timer")
    _require("restart", f"{unit_name(schedule.name)}.timer")


def remove(schedule: Schedule) -> None:
    """Stop the timer and remove the units, also where this folder moved; a run under way goes on.

    Raises:
        SetupError: systemd cannot be asked.
    """
    for unit in {unit_name(schedule.name, root) for root in (ROOT, former_root(schedule))}:
        if (units_folder() / f"{unit}.timer").exists():
            _require("disable", "--now", f"{unit}.timer")
        for kind in ("timer", "service"):
            (units_folder() / f"{unit}.{kind}").unlink(missing_ok=True)
    _require("daemon-reload")


def problem(schedule: Schedule) -> str | None:
    """Why systemd will not call the schedule as it was asked for; None if it will."""
    for file, text in units(schedule).items():
        try:
            found = (units_folder() / file).read_text(encoding="utf-8")
        except OSError:
            return f"the unit {file} is not there"
        if found != text:
            return f"the unit {file} was edited"
    timer = f"{unit_name(schedule.name)}.timer"
    if _systemctl("is-active", "--quiet", timer).returncode != 0:
        return f"{timer} is not active"
    return None


def units(schedule: Schedule) -> dict[str, str]:
    """The two unit files, by name."""
    unit = unit_name(schedule.name)
    arguments = [sys.executable, str(ROOT / "tools" / "run.py"), "--run-scheduled", schedule.name]
    service = f"""\
# Written by tools/run.py --schedule; tools/run.py --unschedule {schedule.name} removes it.
[Unit]
Description=Scheduled fine-tuning: {schedule.name}

[Service]
Type=oneshot
ExecStart={" ".join(map(_quoted, arguments))}
# A training that the kernel kills for want of memory is the caller's to record, repeat and tell.
OOMPolicy=continue
# The caller is asked to stop, and asks the training for a checkpoint.
KillMode=mixed
TimeoutStopSec={GRACE_SECONDS + 60:.0f}
"""
    calendar = "\n".join(f"OnCalendar={event}" for event in to_calendar(schedule.cron))
    timer = f"""\
# {schedule.cron}
[Unit]
Description=When to fine-tune: {schedule.name}

[Timer]
{calendar}
Persistent=true
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
    return {f"{unit}.service": service, f"{unit}.timer": timer}


def unit_name(name: str, root: Path | None = None) -> str:
    """A unit's name without its suffix; two checkouts may have schedules of the same name."""
    checkout = hashlib.sha256(str(root or ROOT).encode()).hexdigest()[:8]
    return f"llm-engineering-finetuning-{checkout}-{name}"


def units_folder() -> Path:
    """Where a user's own units are."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _quoted(argument: str) -> str:
    """One argument of ExecStart, in which \\, ", % and $ mean something."""
    for special, written in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        argument = argument.replace(special, written)
    return f'"{argument}"'


def _require(*arguments: str) -> None:
    done = _systemctl(*arguments)
    if done.returncode != 0:
        raise SetupError(f"systemctl --user {' '.join(arguments)}: {done.stderr.strip()}")


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemctl", "--user", *arguments], capture_output=True, text=True)
