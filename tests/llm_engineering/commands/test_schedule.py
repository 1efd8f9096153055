"""--schedule, --schedules, --unschedule and --run-scheduled, up to the training itself."""

from __future__ import annotations

import os
import re
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llm_engineering.commands import schedule as command
from llm_engineering.configuration import to_yaml
from llm_engineering.errors import ConfigError, LaunchError, SetupError
from llm_engineering.scheduling import clock, host_queue, schedules, tick
from llm_engineering.scheduling.history import Tick, append_tick, read_history
from llm_engineering.scheduling.lock import schedule_lock
from llm_engineering.scheduling.schedules import read_schedule, schedule_names, write_schedule


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What would have been done to cron."""
    done: list[tuple[str, str]] = []
    monkeypatch.setattr(clock, "choose_clock", lambda target: "cron")
    monkeypatch.setattr(clock, "problems", lambda schedule: [])
    monkeypatch.setattr(clock, "leftovers", lambda schedule: [])
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
    add(config_path, overrides=["data.sources.0.source=later.jsonl", "data.held_out.fraction=0.5"])
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


def test_its_file_is_for_its_user_alone_and_says_what_it_could_not_keep(
    config_path, clocks, capsys, monkeypatch
):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a1" * 17)
    add(config_path, name="weekly")
    folder = read_schedule("weekly").folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "schedule.json").stat().st_mode & 0o777 == 0o600
    assert (
        "not kept for the scheduled runs, since they are secrets: HF_TOKEN"
        in capsys.readouterr().err
    )


def test_a_call_sees_the_environment_of_then(config_path, clocks, monkeypatch, capsys):
    """Cron starts with next to nothing: another ZenML store would know of no production."""
    monkeypatch.setenv("ZENML_SOMETHING", "of then")
    add(config_path, name="weekly")
    monkeypatch.delenv("ZENML_SOMETHING")
    seen = []

    def run_tick(schedule: Any, *, force: bool) -> Tick:
        seen.append((os.environ.get("ZENML_SOMETHING"), force))
        return Tick(started="1", outcome="skipped", reason="nothing changed")

    monkeypatch.setattr(tick, "run_tick", run_tick)
    command.run_now("weekly", force=True)
    assert seen == [("of then", True)]
    monkeypatch.delenv("ZENML_SOMETHING")


def test_what_keeps_a_schedule_from_running_is_listed(config_path, clocks, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    add(config_path, "*/10 * * * *", name="often")
    schedule = read_schedule("often")
    long_ago = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    write_schedule(schedule.model_copy(update={"created": long_ago}))
    monkeypatch.setattr(clock, "problems", lambda schedule: ["the crontab has no line of it"])
    capsys.readouterr()
    command.show()
    said = capsys.readouterr().out
    assert re.search("problem +the crontab has no line of it", said)
    assert re.search(r"problem +1[678] call\(s\) that were due have left no trace", said)

    def unreachable(schedule: Any) -> None:
        raise SetupError("no crontab program")

    monkeypatch.setattr(clock, "problems", unreachable)
    command.show()
    assert "cron cannot be asked: no crontab program" in capsys.readouterr().out


def test_a_call_in_the_users_own_words_is_told_when_it_is_removed(
    config_path, clocks, monkeypatch, capsys
):
    add(config_path, name="weekly")
    monkeypatch.setattr(clock, "leftovers", lambda schedule: ["0 3 * * * ./mine.sh"])
    command.remove("weekly")
    assert "the crontab may still call it: 0 3 * * * ./mine.sh" in capsys.readouterr().err


def test_a_call_that_is_asked_to_stop_is_recorded_and_says_by_what(
    config_path, clocks, monkeypatch
):
    """systemd and a shutdown ask by SIGTERM; what is not recorded would be a call without a trace."""
    add(config_path)

    def asked(*_: Any) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return 0

    monkeypatch.setattr(tick, "run_attempt", asked)
    monkeypatch.setattr(host_queue, "FOLDERS", (config_path.parent.resolve(),))
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3]))
    from tools.run import main

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, lambda *_: None)  # of a test that fails, the session goes on
    try:
        done = CliRunner().invoke(main, ["--run-scheduled", "tiny-stdlib_qa"])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert done.exit_code == 128 + signal.SIGTERM, done.output
    (call,) = read_history(read_schedule("tiny-stdlib_qa").folder)
    assert (call.outcome, call.reason) == ("interrupted", "first run; stopped on request")
