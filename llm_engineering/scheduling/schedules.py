"""What a schedule is, and where it is kept: ``.schedules/<name>/`` under the project."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".schedules"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Schedule(BaseModel):
    """One schedule, as it was asked for."""

    name: str
    cron: str = Field(description="The five fields of a cron expression.")
    config_path: Path = Field(description="The configuration file, absolute.")
    overrides: list[str] = Field(description="Values of --set.")
    target: Literal["local", "sagemaker"]
    working_directory: Path = Field(description="Where relative paths in the configuration begin.")
    environment: dict[str, str] = Field(description="Settings of the environment, no secrets.")
    clock: Literal["cron", "systemd", "orchestrator"] = Field(description="What calls it.")
    settings: ScheduleSettings = Field(
        description="The configuration's schedule section when it was scheduled: how to raise an "
        "alert when the configuration cannot be read."
    )

    @property
    def folder(self) -> Path:
        """Where the schedule, its history and its logs are."""
        return schedule_folder(self.name)


def schedule_folder(name: str) -> Path:
    """The folder of a schedule.

    Raises:
        ConfigError: It is no name.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--name {name!r}: use letters, digits, dots, dashes and underscores, 64 at most"
        )
    return FOLDER / name


def write_schedule(schedule: Schedule) -> None:
    """Write a schedule, whole or not at all."""
    schedule.folder.mkdir(parents=True, exist_ok=True)
    part = schedule.folder / "schedule.json.part"
    part.write_text(schedule.model_dump_json(indent=1), encoding="utf-8")
    os.replace(part, schedule.folder / "schedule.json")


def find_schedule(name: str) -> Schedule | None:
    """A schedule by its name; None if there is none.

    Raises:
        ConfigError: Its file cannot be read.
    """
    file = schedule_folder(name) / "schedule.json"
    try:
        return Schedule.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{file}: cannot be read ({error}); remove the schedule and add it again"
        ) from None


def read_schedule(name: str) -> Schedule:
    """A schedule by its name.

    Raises:
        ConfigError: There is none; names those that are.
    """
    schedule = find_schedule(name)
    if schedule is None:
        known = ", ".join(schedule_names()) or "none"
        raise ConfigError(f"no schedule is called {name}; there is: {known}")
    return schedule


def schedule_names() -> list[str]:
    """Names of all schedules, sorted."""
    return sorted(file.parent.name for file in FOLDER.glob("*/schedule.json"))


def delete_schedule(name: str) -> None:
    """Remove a schedule with its history and logs; what it trained stays."""
    shutil.rmtree(schedule_folder(name))
