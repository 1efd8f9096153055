"""The units of a schedule, and when systemd is used at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llm_engineering.errors import SetupError
from llm_engineering.scheduling import systemd
from llm_engineering.scheduling.attempt import GRACE_SECONDS


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``systemctl`` that notes what it was asked; fails where ``refuse`` exists."""
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/asked'\n"
        f"[ ! -e '{tmp_path}/refuse' ] || {{ echo 'no bus' >&2; exit 1; }}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "asked"


def test_the_units_are_written_started_and_removed(systemctl, make_schedule, tmp_path):
    systemd.install(make_schedule(cron="0 0 13 * 5"))
    unit = systemd.unit_name("nightly")
    folder = tmp_path / "config" / "systemd" / "user"
    timer = (folder / f"{unit}.timer").read_text().splitlines()
    assert "OnCalendar=*-*-13 00:00:00" in timer
    assert "OnCalendar=Fri *-*-* 00:00:00" in timer
    assert "Persistent=true" in timer
    assert "--run-scheduled" in (folder / f"{unit}.service").read_text()
    assert systemctl.read_text().splitlines() == [
        "--user daemon-reload",
        f"--user enable {unit}.timer",
        f"--user restart {unit}.timer",
    ]
    systemd.remove(make_schedule())
    assert list(folder.iterdir()) == []
    assert f"--user disable --now {unit}.timer" in systemctl.read_text()


def test_what_systemd_would_not_do_is_told(systemctl, make_schedule, tmp_path):
    schedule = make_schedule()
    unit = systemd.unit_name("nightly")
    assert systemd.problem(schedule) == f"the unit {unit}.service is not there"
    systemd.install(schedule)
    assert systemd.problem(schedule) is None
    timer = tmp_path / "config" / "systemd" / "user" / f"{unit}.timer"
    timer.write_text(timer.read_text().replace("03", "05"))
    assert systemd.problem(schedule) == f"the unit {unit}.timer was edited"
    systemd.install(schedule)
    (tmp_path / "refuse").touch()
    assert systemd.problem(schedule) == f"{unit}.timer is not active"


def test_the_units_of_the_folder_that_this_one_was_go_too(systemctl, make_schedule, tmp_path):
    moved = make_schedule(root=tmp_path / "before")
    folder = tmp_path / "config" / "systemd" / "user"
    folder.mkdir(parents=True)
    for kind in ("timer", "service"):
        (folder / f"{systemd.unit_name('nightly', moved.root)}.{kind}").touch()
    systemd.remove(moved)
    assert list(folder.iterdir()) == []


def test_an_oom_kill_ends_the_training_alone_and_a_stop_asks_the_caller(make_schedule):
    """By default the kill ends the unit: the caller would get SIGTERM and report a wish to stop."""
    service = next(iter(systemd.units(make_schedule()).values())).splitlines()
    assert "OOMPolicy=continue" in service
    assert "KillMode=mixed" in service
    assert f"TimeoutStopSec={GRACE_SECONDS + 60:.0f}" in service


def test_it_is_used_only_where_a_user_manager_answers(systemctl, make_schedule, tmp_path):
    assert systemd.is_available()
    (tmp_path / "refuse").touch()
    assert not systemd.is_available()
    with pytest.raises(SetupError, match="systemctl --user daemon-reload: no bus"):
        systemd.install(make_schedule())


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("root", ["/work", '/a "100%" $HOME folder'])
def test_systemd_finds_no_fault_with_the_units(make_schedule, monkeypatch, tmp_path, root):
    monkeypatch.setattr(systemd, "ROOT", Path(root))
    files = []
    for name, text in systemd.units(make_schedule()).items():
        (tmp_path / name).write_text(text)
        files.append(str(tmp_path / name))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True
    )
    about_us = [line for line in done.stderr.splitlines() if "llm-engineering" in line]
    assert about_us == []


def test_what_means_something_to_systemd_is_escaped(make_schedule, monkeypatch):
    monkeypatch.setattr(systemd, "ROOT", Path('/a "100%" $HOME'))
    service = next(iter(systemd.units(make_schedule()).values()))
    assert r'"/a \"100%%\" $$HOME/tools/run.py"' in service
