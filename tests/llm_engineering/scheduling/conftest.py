"""Schedules in a folder of the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling import host_queue, schedules
from llm_engineering.scheduling.schedules import Schedule, write_schedule

MakeSchedule = Callable[..., Schedule]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Schedules and the host's queues are in the test's folder, and its working directory comes back."""
    folder = tmp_path / ".schedules"
    monkeypatch.setattr(schedules, "FOLDER", folder)
    monkeypatch.setattr(host_queue, "FOLDERS", (tmp_path,))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def make_schedule(tmp_path: Path) -> MakeSchedule:
    """Write a schedule, as --schedule does, but set no clock."""

    def make(**changes: Any) -> Schedule:
        values: dict[str, Any] = {
            "name": "nightly",
            "cron": "0 3 * * *",
            "config_path": tmp_path / "config.yaml",
            "overrides": [],
            "target": "local",
            "working_directory": tmp_path,
            "environment": {},
            "clock": "cron",
            "settings": ScheduleSettings(),
        }
        schedule = Schedule(**(values | changes))
        write_schedule(schedule)
        return schedule

    return make


@pytest.fixture
def alert_command(tmp_path: Path) -> list[str]:
    """A program that keeps what it is told in ``alerts.txt``."""
    program = tmp_path / "alert.sh"
    program.write_text(f"#!/bin/sh\ncat >> '{tmp_path}/alerts.txt'\n")
    program.chmod(0o755)
    return [str(program)]


@pytest.fixture
def fake_crontab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file behind a ``crontab`` program that behaves like Debian's."""
    file = tmp_path / "tab"
    program = tmp_path / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
case "$1" in
-l) if [ -e '{file}' ]; then cat '{file}'; else echo 'no crontab for me' >&2; exit 1; fi ;;
-r) rm '{file}' ;;
-) cat > '{file}.new'
   if grep -q '^99' '{file}.new'; then echo '"-":1: bad minute' >&2; exit 1; fi
   mv '{file}.new' '{file}' ;;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return file


@pytest.fixture
def add_secret() -> Iterator[Callable[..., str]]:
    """Put a secret into ZenML; returns its name."""
    from zenml.client import Client

    names = []

    def add(**values: str) -> str:
        names.append(f"secret-{uuid4().hex[:8]}")
        Client().create_secret(names[-1], values)
        return names[-1]

    yield add
    for name in names:
        Client().delete_secret(name)
