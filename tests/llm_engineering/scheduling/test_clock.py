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
    assert "no cron daemon" in clock.warning(make_schedule())
    assert "loginctl enable-linger" in clock.warning(make_schedule(clock="systemd"))
    monkeypatch.setattr(crontab, "daemon_runs", lambda: True)
    assert clock.warning(make_schedule()) is None
