"""What a schedule is, and where it is kept: ``.schedules/<name>/`` under the project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.errors import ConfigError
from llm_engineering.scheduling.whole_file import write_whole

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
    root: Path = Field(ROOT, description="This checkout's folder, which the clock calls.")
    created: str = Field("", description="When it was asked for; UTC, ISO 8601.")
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
    """Write a schedule, whole or not at all; for its user alone, since an alert may name a secret."""
    schedule.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(schedule.folder / "schedule.json", schedule.model_dump_json(indent=1))


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


def former_root(schedule: Schedule) -> Path | None:
    """Where this checkout was when the schedule was asked for, and is called by the clock; None: here.

    None too where this is a copy of a checkout that is still there and has the schedule itself.
    """
    if schedule.root == ROOT or (schedule.root / FOLDER.name / schedule.name).exists():
        return None
    return schedule.root


def schedule_names() -> list[str]:
    """Names of all schedules, sorted."""
    return sorted(file.parent.name for file in FOLDER.glob("*/schedule.json"))


def delete_schedule(name: str) -> None:
    """Remove a schedule with its history and logs; what it trained stays."""
    shutil.rmtree(schedule_folder(name))
