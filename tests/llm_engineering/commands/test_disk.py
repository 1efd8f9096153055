"""``--disk``: sizes, why each folder stays, and what the policy would remove."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from llm_engineering.commands import disk
from llm_engineering.configuration import to_yaml
from llm_engineering.scheduling import disk_use, schedules
from llm_engineering.scheduling.disk_use import folder_bytes
from llm_engineering.scheduling.history import Tick, append_tick
from llm_engineering.scheduling.schedules import Schedule, write_schedule


@pytest.fixture
def world(make_config, tmp_path, monkeypatch):
    """A schedule with two old runs, a run by hand and abandoned work."""
    monkeypatch.setattr(schedules, "FOLDER", tmp_path / ".schedules")
    monkeypatch.setattr(disk_use, "FOLDER", tmp_path / ".schedules")
    retention = {"keep_runs": 1, "keep_days": 30, "keep_interrupted_days": 7}
    config = make_config({"schedule.retention": retention})
    (tmp_path / "config.yaml").write_text(to_yaml(config, schedule=True))
    schedule = Schedule(
        name="nightly", cron="0 3 * * *", config_path=tmp_path / "config.yaml", overrides=[],
        target="local", working_directory=tmp_path, environment={}, clock="cron",
        settings=config.schedule,
    )  # fmt: skip
    write_schedule(schedule)
    outputs = tmp_path / "outputs"
    old = time.time() - 90 * 86_400
    for name in ("old", "new", "by-hand", ".work/left"):
        folder = outputs / name
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"x" * 2_000_000)
        for path in (folder / "weights", folder):
            os.utime(path, (old, old))
    for name in ("old", "new"):
        append_tick(
            schedule.folder,
            Tick(
                started="2026-01-01T00:00:00+00:00",
                outcome="succeeded",
                runs=[name],
                output_dir=outputs,
            ),
        )
    return tmp_path


def test_it_says_what_takes_how_much_and_what_would_go(world, capsys):
    disk.show(world / "config.yaml", [])
    said = capsys.readouterr().out
    stays = {
        line.split(f"{world}/outputs/")[1].split()[0]: line
        for line in said.splitlines()
        if "outputs/" in line
    }
    assert "no: the policy removes it" in stays["old"]
    assert "no: the policy removes it" in stays[".work/left"]
    assert "newest success" in stays["new"]
    assert "made by hand: no schedule removes it" in stays["by-hand"]
    assert all("2 MB" in line for line in stays.values())
    assert " in runs, of which schedule.retention would remove " in said
    assert "ZenML's database and copies" in said
    assert (world / "outputs" / "old").is_dir(), "it only looks"


def test_a_file_that_is_linked_twice_counts_once(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert 100_000 <= folder_bytes(tmp_path) < 120_000
