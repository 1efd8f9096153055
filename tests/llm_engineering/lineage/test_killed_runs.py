"""Which runs were killed; tests/tools/test_run_scheduled.py sees them failed in ZenML."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from llm_engineering.errors import SetupError
from llm_engineering.lineage import killed_runs
from llm_engineering.lineage.killed_runs import close_killed_runs, marked_as_running
from llm_engineering.lineage.store import store_is_held


@pytest.fixture(autouse=True)
def ended(monkeypatch):
    """What ZenML says of a run: that it has ended, until a test says otherwise."""
    answer = SimpleNamespace(known=True)

    class Client:
        def list_pipeline_runs(self, **_):
            if answer.known is None:
                raise ConnectionError("connection refused")
            return [SimpleNamespace(status=SimpleNamespace(is_finished=answer.known))]

    monkeypatch.setattr("zenml.client.Client", Client)
    return answer


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


@pytest.mark.parametrize("known", [False, None])
def test_a_mark_stays_where_zenml_did_not_hear_of_the_end(known, ended, tmp_path, monkeypatch):
    ended.known = known
    with pytest.raises(ConnectionError), marked_as_running(tmp_path, "run"):
        raise ConnectionError("the server is gone")
    closed = []
    monkeypatch.setattr(killed_runs, "_mark_as_failed", closed.append)
    assert close_killed_runs(tmp_path) == ["run"] == closed


def test_the_store_is_held_as_long_as_a_run_is(tmp_path):
    assert not store_is_held()
    with marked_as_running(tmp_path, "one"), marked_as_running(tmp_path, "two"):
        assert store_is_held()
    assert not store_is_held()


def test_the_dashboard_is_not_stopped_under_a_run(tmp_path, monkeypatch):
    from llm_engineering.commands import dashboard
    from llm_engineering.lineage import local_server

    stopped = []
    monkeypatch.setattr(dashboard, "set_up_terminal", lambda: None)
    monkeypatch.setattr(local_server, "remote_server", lambda: None)
    monkeypatch.setattr(local_server, "stop_local_server", lambda: stopped.append(1))
    with marked_as_running(tmp_path, "run"), pytest.raises(SetupError, match="a run is going on"):
        dashboard.stop()
    assert stopped == []
    dashboard.stop()
    assert stopped == [1]


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
