"""--schedule, --schedules, --unschedule and --run-scheduled, up to the training itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_engineering.commands import schedule as command
from llm_engineering.configuration import to_yaml
from llm_engineering.errors import ConfigError, LaunchError
from llm_engineering.scheduling import clock, schedules
from llm_engineering.scheduling.history import Tick, append_tick
from llm_engineering.scheduling.lock import schedule_lock
from llm_engineering.scheduling.schedules import read_schedule, schedule_names


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What would have been done to cron."""
    done: list[tuple[str, str]] = []
    monkeypatch.setattr(clock, "choose_clock", lambda target: "cron")
    monkeypatch.setattr(clock, "warning", lambda schedule: None)
    monkeypatch.setattr(
        clock, "install", lambda schedule, config: done.append(("set", schedule.cron))
    )
    monkeypatch.setattr(clock, "remove", lambda schedule: done.append(("removed", schedule.name)))
    return done


@pytest.fixture
def config_path(make_config, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(schedules, "FOLDER", tmp_path / ".schedules")
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(to_yaml(make_config()))
    return Path("config.yaml")


def add(
    config_path: Path, cron: str = "0 3 * * 1", name: str | None = None, **options: Any
) -> None:
    overrides = options.pop("overrides", [])
    command.add(cron, name, config_path, overrides, target=options.pop("target", "local"))


def test_a_schedule_is_named_by_model_and_data_and_remembers_where_it_began(
    config_path, clocks, tmp_path, capsys
):
    add(config_path, overrides=["run.seed=1"])
    (name,) = schedule_names()
    assert name == "tiny-stdlib_qa"
    schedule = read_schedule(name)
    assert schedule.config_path == tmp_path / "config.yaml"
    assert schedule.working_directory == tmp_path
    assert schedule.overrides == ["run.seed=1"]
    assert clocks == [("set", "0 3 * * 1")]
    said = capsys.readouterr().out
    assert "tiny-stdlib_qa, by cron" in said
    assert said.count("03:00") == 3
    assert "--unschedule tiny-stdlib_qa" in said


def test_the_same_name_and_configuration_changes_the_time_and_keeps_the_history(
    config_path, clocks
):
    add(config_path)
    folder = read_schedule("tiny-stdlib_qa").folder
    append_tick(folder, Tick(started="1", outcome="succeeded", runs=["a"]))
    add(config_path, "0 4 * * 1")
    assert read_schedule("tiny-stdlib_qa").cron == "0 4 * * 1"
    assert (folder / "history.jsonl").exists()
    assert clocks == [("set", "0 3 * * 1"), ("set", "0 4 * * 1")]


def test_the_name_of_another_configuration_is_taken(config_path, clocks):
    add(config_path, name="weekly")
    other = config_path.rename("other.yaml")
    with pytest.raises(
        ConfigError, match=r"--name: weekly is a schedule of .*/config\.yaml already"
    ):
        add(other, name="weekly")


def test_what_cannot_work_is_refused_when_it_is_scheduled(config_path, clocks):
    with pytest.raises(ConfigError, match="--schedule '0 25"):
        add(config_path, "0 25 * * *")
    with pytest.raises(ConfigError, match="unknown key"):
        add(config_path, overrides=["train.epochz=3"])
    with pytest.raises(LaunchError, match="sagemaker"):
        add(config_path, target="sagemaker")
    assert schedule_names() == []
    assert clocks == []


def test_what_is_not_there_yet_is_a_warning(config_path, clocks, capsys):
    add(config_path, overrides=["data.sources.0.source=later.jsonl"])
    assert (
        "warning: as things are, it would fail: data source later.jsonl" in capsys.readouterr().err
    )
    assert len(schedule_names()) == 1


def test_a_clock_that_cannot_be_set_leaves_no_schedule(config_path, clocks, monkeypatch):
    def refuse(schedule: Any, config: Any) -> None:
        raise ConfigError("bad minute")

    add(config_path, name="kept")
    monkeypatch.setattr(clock, "install", refuse)
    with pytest.raises(ConfigError, match="bad minute"):
        add(config_path, name="new")
    with pytest.raises(ConfigError, match="bad minute"):
        add(config_path, "0 4 * * 1", name="kept")
    assert schedule_names() == ["kept"]
    assert read_schedule("kept").cron == "0 3 * * 1"


def test_it_is_listed_and_removed(config_path, clocks, capsys):
    command.show()
    assert "no schedules; add one" in capsys.readouterr().out
    add(config_path, name="weekly")
    capsys.readouterr()
    command.show()
    assert "weekly" in capsys.readouterr().out
    command.remove("weekly")
    assert clocks[-1] == ("removed", "weekly")
    assert schedule_names() == []
    with pytest.raises(ConfigError, match="no schedule is called weekly"):
        command.remove("weekly")


def test_removing_one_that_runs_stops_the_clock_only(config_path, clocks, capsys):
    add(config_path, name="weekly")
    with schedule_lock(read_schedule("weekly").folder):
        command.remove("weekly")
    assert clocks[-1] == ("removed", "weekly")
    assert schedule_names() == ["weekly"]
    assert "A run of it is going on" in capsys.readouterr().out
