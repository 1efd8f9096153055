"""The units of a schedule, and when systemd is used at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llm_engineering.errors import SetupError
from llm_engineering.scheduling import systemd


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
    systemd.remove("nightly")
    assert list(folder.iterdir()) == []
    assert f"--user disable --now {unit}.timer" in systemctl.read_text()


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
