"""--run-scheduled as a clock calls it: kill -9 in the middle, a full disk, what resumes and alerts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llm_engineering.configuration import to_yaml
from llm_engineering.scheduling import crontab
from llm_engineering.scheduling.history import Tick, read_history
from llm_engineering.scheduling.schedules import Schedule, read_schedule, write_schedule

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, str(ROOT / "tools" / "run.py"), "--run-scheduled"]
NAME = f"test-{os.getpid()}"


@pytest.fixture
def schedule(make_config, tmp_path) -> Iterator[Schedule]:
    """A schedule that no clock calls; it alerts into ``alerts.txt``."""
    config = make_config(
        {
            "registry.model": f"scheduled-{os.getpid()}",  # one that has no production version yet
            "train.max_steps": 150,
            "train.checkpoint_every": 10,
            "train.keep_checkpoints": 1,
            "schedule.retries": 0,
            "schedule.queue": NAME,
            "schedule.alert_command": ["tee", "-a", str(tmp_path / "alerts.txt")],
        }
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config, schedule=True))
    schedule = Schedule(
        name=NAME,
        cron="0 3 * * *",
        config_path=tmp_path / "config.yaml",
        overrides=[],
        target="local",
        working_directory=tmp_path,
        environment={},
        clock="cron",
        settings=config.schedule,
    )
    write_schedule(schedule)
    yield schedule
    shutil.rmtree(schedule.folder)


def run_scheduled() -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, NAME], capture_output=True, text=True)


def last(schedule: Schedule) -> Tick:
    return read_history(schedule.folder)[-1]


@pytest.mark.long
def test_a_training_killed_with_9_is_told_failed_in_zenml_and_resumed_by_the_next_call(
    schedule, tmp_path
):
    from zenml.client import Client

    outputs = tmp_path / "outputs"
    caller = subprocess.Popen([*RUN, NAME], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 180
    while not list(outputs.glob(".work/*/checkpoints/*/complete.json")):
        assert caller.poll() is None, caller.stdout.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)

    overlapping = run_scheduled()
    assert overlapping.returncode == 0
    assert "skipped: the run before it is still going on" in overlapping.stdout

    (training,) = psutil.Process(caller.pid).children()
    training.send_signal(signal.SIGKILL)
    assert caller.wait(timeout=60) == 13
    killed = last(schedule)
    assert (killed.outcome, killed.reason) == (
        "failed",
        "killed by SIGKILL, perhaps for want of memory",
    )
    assert "killed by SIGKILL" in (tmp_path / "alerts.txt").read_text()
    run = Client().get_pipeline_run(killed.runs[-1])
    assert str(run.status) == "failed"
    # The data step may come from the cache of another run of the same worker.
    assert {str(step.status) for step in run.steps.values()} <= {"completed", "cached", "failed"}

    done = run_scheduled()
    assert done.returncode == 0, done.stdout + done.stderr
    tick = last(schedule)
    assert (tick.outcome, tick.reason, tick.promoted) == ("succeeded", "first run", True)
    manifest = json.loads((tick.folders[-1] / "manifest.json").read_text())
    assert manifest["resumed_from_step"] >= 10
    assert list((outputs / ".work").iterdir()) == []

    # As after an update of the data that went wrong: production is as it was.
    Path(tmp_path / "stdlib_qa" / "train.jsonl").unlink()
    assert run_scheduled().returncode == 13
    assert "train.jsonl: no such file" in (tmp_path / "alerts.txt").read_text()
    versions = Client().list_model_versions(stage="production").items
    assert tick.version in [version.name for version in versions]


@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_is_told_although_nothing_can_be_written(schedule, tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    full = f"""
        mount -t tmpfs -o size=64k tmpfs {schedule.folder}
        cp {tmp_path}/schedule.json {schedule.folder}/
        dd if=/dev/zero of={schedule.folder}/fill bs=1k 2>/dev/null
        exec "$@"
    """
    shutil.copy(schedule.folder / "schedule.json", tmp_path)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", full, "sh", *RUN, NAME], capture_output=True, text=True
    )
    assert done.returncode == 13, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    told = (tmp_path / "alerts.txt").read_text()
    assert f"It could not be recorded in {schedule.folder}" in told
    assert "No space left on device" in told


def test_a_name_that_is_none_says_which_there_are():
    done = subprocess.run([*RUN, "nothing-of-that-name"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no schedule is called nothing-of-that-name; there is: ")


@pytest.mark.skipif(not crontab.is_available(), reason="cron is not installed")
def test_scheduled_listed_and_removed_by_the_real_command(make_config, tmp_path):
    """With the real crontab, whose other lines must be the same before and after."""
    (tmp_path / "config.yaml").write_text(to_yaml(make_config()))
    tab = ["crontab", "-l"]
    before = subprocess.run(tab, capture_output=True, text=True).stdout
    program = RUN[:-1]
    add = ["--finetune", "--schedule", "0 3 * * 1", "--name", NAME, "--config", "config.yaml"]
    try:
        done = subprocess.run([*program, *add], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        added = subprocess.run(tab, capture_output=True, text=True).stdout
        if read_schedule(NAME).clock == "cron":
            assert added.startswith(before)
            assert f"--run-scheduled {NAME}" in added.removeprefix(before)
        listed = subprocess.run([*program, "--schedules"], capture_output=True, text=True)
        assert NAME in listed.stdout
    finally:
        done = subprocess.run([*program, "--unschedule", NAME], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(tab, capture_output=True, text=True).stdout == before
    assert not (ROOT / ".schedules" / NAME).exists()
