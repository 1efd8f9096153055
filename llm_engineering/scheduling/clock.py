"""What calls a schedule: the stack's orchestrator, a systemd user timer, or cron."""

from __future__ import annotations

from typing import Literal

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import SetupError
from llm_engineering.scheduling import crontab, orchestrator, systemd
from llm_engineering.scheduling.schedules import Schedule, former_root
from llm_engineering.scheduling.time_zone import host_zone, other_zone

Clock = Literal["cron", "systemd", "orchestrator"]


def choose_clock(target: str) -> Clock:
    """The orchestrator where it can keep schedules, else systemd where it runs, else cron.

    Raises:
        SetupError: There is none of them.
    """
    if target == "local" and orchestrator.is_available():
        return "orchestrator"
    if systemd.is_available():
        return "systemd"
    if crontab.is_available():
        return "cron"
    raise SetupError(
        "--schedule: this host has no systemd user manager and no cron: install one (Debian: "
        "apt-get install cron), or have your own scheduler call tools/run.py --run-scheduled NAME"
    )


def install(schedule: Schedule, config: FinetuningConfig) -> None:
    """Set the clock; a schedule of the same name is set anew.

    Raises:
        ConfigError: The clock does not take the expression or the name.
        SetupError: The clock cannot be set.
    """
    if schedule.clock == "orchestrator":
        orchestrator.install(schedule, config)
    else:
        (systemd if schedule.clock == "systemd" else crontab).install(schedule)


def remove(schedule: Schedule) -> None:
    """Stop the clock.

    Raises:
        SetupError: It cannot be stopped.
    """
    clocks = {"orchestrator": orchestrator, "systemd": systemd, "cron": crontab}
    clocks[schedule.clock].remove(schedule)


def problems(schedule: Schedule) -> list[str]:
    """What keeps the clock from calling, and what to do about it.

    Raises:
        SetupError: The clock cannot be asked.
    """
    again = f'give --finetune --schedule "{schedule.cron}" --name {schedule.name} again'
    if schedule.clock == "orchestrator":
        return []
    found = []
    moved = former_root(schedule)
    if moved is not None:
        found.append(f"this folder was {moved} when it was scheduled, and is called there: {again}")
    elif said := (systemd if schedule.clock == "systemd" else crontab).problem(schedule):
        found.append(f"{said}: {again}")
    if schedule.clock == "cron" and not crontab.daemon_runs():
        found.append(
            "no cron daemon is seen to run: start it, or nothing will happen (service cron start)"
        )
    if schedule.clock == "systemd" and not systemd.lingers():
        found.append(
            "systemd runs your timers only while you are logged in: `loginctl enable-linger` "
            "lets them run always"
        )
    zone = other_zone()
    if zone is not None:
        found.append(
            f"TZ is {zone} here, and {schedule.clock} goes by the host's time, {host_zone().key}"
        )
    return found


def leftovers(schedule: Schedule) -> list[str]:
    """Lines of the crontab that may call the schedule in words of the user's own."""
    return crontab.leftovers(schedule) if schedule.clock == "cron" else []
