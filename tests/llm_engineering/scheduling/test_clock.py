"""Which clock a host gets."""

from __future__ import annotations

import pytest

from llm_engineering.errors import SetupError
from llm_engineering.scheduling import clock, crontab, orchestrator, systemd


@pytest.fixture
def host(monkeypatch):
    """Say what a host has."""

    def have(*, stack: bool = False, timers: bool = False, cron: bool = False) -> None:
        monkeypatch.setattr(orchestrator, "is_available", lambda: stack)
        monkeypatch.setattr(systemd, "is_available", lambda: timers)
        monkeypatch.setattr(crontab, "is_available", lambda: cron)

    return have


def test_the_orchestrator_comes_before_systemd_and_that_before_cron(host):
    host(stack=True, timers=True, cron=True)
    assert clock.choose_clock("local") == "orchestrator"
    assert clock.choose_clock("sagemaker") == "systemd", "this host launches the job"
    host(cron=True)
    assert clock.choose_clock("local") == "cron"


def test_a_host_without_any_says_what_to_install(host):
    host()
    with pytest.raises(SetupError, match=r"apt-get install cron.*--run-scheduled NAME"):
        clock.choose_clock("local")


def test_a_clock_that_will_not_tick_is_warned_of(make_schedule, monkeypatch):
    monkeypatch.setattr(crontab, "daemon_runs", lambda: False)
    monkeypatch.setattr(systemd, "lingers", lambda: False)
    monkeypatch.setattr(crontab, "problem", lambda schedule: None)
    monkeypatch.setattr(systemd, "problem", lambda schedule: "its timer is not active")
    monkeypatch.delenv("TZ", raising=False)
    (cron,) = clock.problems(make_schedule())
    assert "no cron daemon" in cron
    inactive, lingering = clock.problems(make_schedule(clock="systemd"))
    assert "loginctl enable-linger" in lingering
    assert inactive.startswith("its timer is not active: give --finetune --schedule")
    monkeypatch.setattr(crontab, "daemon_runs", lambda: True)
    assert clock.problems(make_schedule()) == []


def test_an_edited_line_a_moved_folder_and_another_time_zone_are_told(
    fake_crontab, make_schedule, monkeypatch, tmp_path
):
    monkeypatch.setattr(crontab, "daemon_runs", lambda: True)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    schedule = make_schedule()
    missing, zone = clock.problems(schedule)
    assert missing == (
        'the crontab has no line of it: give --finetune --schedule "0 3 * * *" --name nightly again'
    )
    assert zone.startswith("TZ is Asia/Kathmandu here, and cron goes by the host's time, ")
    monkeypatch.setenv("TZ", "")
    crontab.install(schedule)
    assert clock.problems(schedule) == []
    fake_crontab.write_text(fake_crontab.read_text().replace("0 3 ", "0 5 "))
    (edited,) = clock.problems(schedule)
    assert edited.startswith("its line in the crontab was edited: 0 5 * * * ")
    fake_crontab.write_text("#" + fake_crontab.read_text())
    assert clock.problems(schedule)[0].startswith("the crontab has no line of it")
    moved = make_schedule(root=tmp_path / "before")
    (said,) = clock.problems(moved)
    assert said.startswith(f"this folder was {tmp_path}/before when it was scheduled")
