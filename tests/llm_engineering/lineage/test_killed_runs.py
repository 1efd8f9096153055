"""Which runs were killed; tests/tools/test_run_scheduled.py sees them failed in ZenML."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from llm_engineering.lineage import killed_runs
from llm_engineering.lineage.killed_runs import close_killed_runs, marked_as_running

HOLD = """
import sys, time
from pathlib import Path
from llm_engineering.lineage.killed_runs import marked_as_running
with marked_as_running(Path(sys.argv[1]), "killed"):
    time.sleep(60)
"""


def test_a_mark_is_gone_with_its_run(tmp_path):
    with marked_as_running(tmp_path / "work", "run"):
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["run.running"]
    assert list((tmp_path / "work").iterdir()) == []
    assert close_killed_runs(tmp_path / "work") == []


def test_a_run_that_goes_on_is_left_alone_until_it_is_killed(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(killed_runs, "_mark_as_failed", closed.append)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=os.getcwd())
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "killed.running").exists() or close_killed_runs(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        closed.clear()
        time.sleep(0.2)
        assert close_killed_runs(tmp_path) == []
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert close_killed_runs(tmp_path) == ["killed"] == closed
    assert list(tmp_path.iterdir()) == []
