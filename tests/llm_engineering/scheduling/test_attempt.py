"""One attempt: the command line, what its end means, and who holds the lock."""

from __future__ import annotations

import io
import os
import subprocess
import time

import psutil
import pytest

from llm_engineering import errors
from llm_engineering.sagemaker.follow import JobFailedError, NoCapacityError
from llm_engineering.scheduling import attempt
from llm_engineering.scheduling.attempt import (
    RanTooLongError,
    describe_failure,
    may_be_cured,
    run_attempt,
)
from llm_engineering.scheduling.lock import schedule_lock


@pytest.fixture
def commands(monkeypatch):
    """Command lines that would have been run."""
    seen = []
    real = subprocess.Popen

    def popen(command, **options):
        seen.append(command)
        return real(["true"], **options)

    monkeypatch.setattr(attempt.subprocess, "Popen", popen)
    return seen


def run(schedule, tmp_path):
    with (tmp_path / "log").open("ab") as log, schedule_lock(schedule.folder) as lock:
        return run_attempt(schedule, "run-1", log, [lock])


def test_a_local_attempt_goes_on_from_an_interrupted_one(commands, make_schedule, tmp_path):
    schedule = make_schedule(
        overrides=["run.seed=1", "schedule.alert_command=[x]", "train.epochs=2"]
    )
    assert run(schedule, tmp_path) == 0
    (command,) = commands
    assert "--resume=if-possible" in command
    assert command[command.index("--run-name") + 1] == "run-1"
    assert command[command.index("--config") + 1] == str(schedule.config_path)
    assert [command[i + 1] for i, word in enumerate(command) if word == "--set"] == [
        "run.seed=1",
        "train.epochs=2",
    ]


def test_a_sagemaker_attempt_leaves_that_to_the_job(commands, make_schedule, tmp_path):
    run(make_schedule(target="sagemaker"), tmp_path)
    assert not [word for word in commands[0] if word.startswith("--resume")]
    assert commands[0][-2:] == ["--target", "sagemaker"]


@pytest.mark.parametrize(
    "status", [-9, -15, 1, 134, NoCapacityError.exit_code, errors.HubError.exit_code]
)
def test_what_time_may_cure_is_tried_again(status):
    assert may_be_cured(status)


@pytest.mark.parametrize(
    "kind",
    [
        errors.ConfigError,
        errors.DataError,
        errors.ModelError,
        errors.HardwareError,
        errors.SetupError,
        errors.TrainingError,
        errors.SecretError,
        JobFailedError,
    ],
)
def test_what_the_user_must_mend_is_not(kind):
    assert not may_be_cured(kind.exit_code)


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (-9, "", "killed by SIGKILL, perhaps for want of memory"),
        (-15, "", "killed by SIGTERM"),
        (3, "reading\nerror: a.jsonl:3: is not JSON\n1 bad row(s)\n", "a.jsonl:3: is not JSON\n1 bad row(s)"),
        (1, "Traceback\n  File x\nOSError: [Errno 28] No space left\n\n", "OSError: [Errno 28] No space left"),
        (1, "", "exit status 1, without a message"),
    ],
)  # fmt: skip
def test_how_it_ended_in_words(tmp_path, status, text, said):
    log = tmp_path / "log"
    log.write_text("error: of an earlier attempt\n" + text)
    assert describe_failure(status, log, len("error: of an earlier attempt\n")) == said


def hanging(monkeypatch, script):
    """Attempts are this shell script."""
    real = subprocess.Popen
    monkeypatch.setattr(
        attempt.subprocess,
        "Popen",
        lambda command, **options: real(["sh", "-c", script], **options),
    )


@pytest.mark.parametrize(
    ("script", "how"),
    [
        (
            "trap 'echo saved; exit 143' TERM; echo up; while :; do sleep 0.05; done",
            "asked to stop",
        ),
        (
            "trap '' TERM; sleep 60 & echo up; wait; sleep 60",
            "killed, since it did not stop within",
        ),
    ],
)
def test_a_training_that_hangs_is_asked_and_then_killed_with_all_that_it_started(
    make_schedule, tmp_path, monkeypatch, script, how
):
    hanging(monkeypatch, script)
    monkeypatch.setattr(attempt, "GRACE_SECONDS", 60.0 if how == "asked to stop" else 0.4)
    with (
        (tmp_path / "log").open("ab") as log,
        pytest.raises(RanTooLongError, match=rf"max_run_seconds \(2 s\), and was {how}"),
    ):
        run_attempt(make_schedule(), "run-1", log, [], max_seconds=1.5)
    assert (tmp_path / "log").read_text() == ("up\nsaved\n" if how == "asked to stop" else "up\n")
    time.sleep(0.1)
    assert not [
        process
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] == ["sleep", "60"] and str(tmp_path) == process.cwd()
    ]


def test_a_training_that_outlives_its_caller_still_holds_the_lock(
    make_schedule, tmp_path, monkeypatch
):
    """The caller was killed with -9: its training goes on, and a second must not begin beside it."""
    schedule = make_schedule()
    read, write = os.pipe()
    real = subprocess.Popen
    monkeypatch.setattr(
        attempt.subprocess, "Popen", lambda command, **options: real(["sleep", "1"], **options)
    )
    child = os.fork()
    if child == 0:
        with schedule_lock(schedule.folder) as lock:
            monkeypatch.setattr(
                real, "wait", lambda process, _: os.write(write, b"x") and os._exit(0)
            )
            run_attempt(schedule, "run-1", io.FileIO(os.devnull, "w"), [lock])
    os.read(read, 1)
    os.waitpid(child, 0)
    with schedule_lock(schedule.folder) as lock:
        assert lock is None
    time.sleep(1.2)
    with schedule_lock(schedule.folder) as lock:
        assert lock is not None
