"""What one call of a schedule does: when it trains, tries again, gives up, and what it tells."""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_engineering.configuration import to_yaml
from llm_engineering.errors import HubError, ScheduledRunError
from llm_engineering.scheduling import tick as ticks
from llm_engineering.scheduling.attempt import RanTooLongError
from llm_engineering.scheduling.history import read_history
from llm_engineering.scheduling.lock import schedule_lock
from llm_engineering.scheduling.schedules import read_schedule, write_schedule


@pytest.fixture
def schedule(make_config, make_schedule, tmp_path, alert_command):
    """A schedule of the tiny model that alerts into ``alerts.txt``."""
    settings = {
        "schedule.retries": 2,
        "schedule.retry_wait_seconds": 10,
        "schedule.alert_command": alert_command,
        "schedule.max_run_seconds": 4000,
    }
    config = make_config(settings)
    (tmp_path / "config.yaml").write_text(to_yaml(config, schedule=True))
    return make_schedule(settings=config.schedule)


@pytest.fixture
def ends(monkeypatch, tmp_path) -> Iterator[list[int]]:
    """How the attempts end, one after another, in place of trainings; success leaves a folder."""
    statuses: list[int] = []

    def attempt(schedule, run, log, locks, max_seconds):
        status = statuses.pop(0)
        log.write(f"{run} says hello\n".encode())
        if status == 0:
            folder = tmp_path / "outputs" / run
            folder.mkdir(parents=True, exist_ok=True)  # all within one second
            decision = {"promoted": True, "reason": "better", "version": run}
            (folder / "promotion.json").write_text(json.dumps(decision))
        elif status > 0:
            log.write(f"error: reason {status}\n".encode())
        return status

    monkeypatch.setattr(ticks, "run_attempt", attempt)
    monkeypatch.setattr(ticks, "_dashboard_url", lambda run: "http://dashboard/run")
    yield statuses
    assert statuses == [], "attempts that were expected and not made"


def alerts(tmp_path: Path) -> str:
    file = tmp_path / "alerts.txt"
    return file.read_text() if file.exists() else ""


def append_row(tmp_path: Path) -> None:
    with (tmp_path / "stdlib_qa" / "train.jsonl").open("a") as file:
        file.write('{"instruction": "Is this new?", "response": "Yes."}\n')


def test_it_trains_then_skips_then_trains_on_new_data(schedule, ends, tmp_path):
    ends += [0]
    first = ticks.run_tick(schedule)
    assert (first.outcome, first.reason) == ("succeeded", "first run")
    second = ticks.run_tick(schedule)
    assert (second.outcome, second.reason) == ("skipped", "nothing changed since the last success")
    append_row(tmp_path)
    ends += [0]
    third = ticks.run_tick(schedule)
    assert (third.outcome, third.reason) == ("succeeded", "data changed")
    recorded = read_history(schedule.folder)
    assert [tick.outcome for tick in recorded] == ["succeeded", "skipped", "succeeded"]
    assert recorded[0].promoted is True
    assert recorded[0].version == recorded[0].runs[0]
    assert recorded[0].url == "http://dashboard/run"
    assert alerts(tmp_path) == ""


def test_force_trains_although_nothing_changed(schedule, ends):
    ends += [0, 0]
    ticks.run_tick(schedule)
    assert ticks.run_tick(schedule, force=True).reason == "forced, nothing changed"


def test_a_failure_is_no_success_to_compare_with(schedule, ends):
    ends += [3, 0]
    with pytest.raises(ScheduledRunError):
        ticks.run_tick(schedule)
    assert ticks.run_tick(schedule).reason == "first run"


def test_an_overlapping_start_is_skipped_and_recorded(schedule):
    with schedule_lock(schedule.folder):
        tick = ticks.run_tick(schedule)
    assert (tick.outcome, tick.reason) == ("skipped", "the run before it is still going on")
    assert read_history(schedule.folder) == [tick]


def test_a_killed_attempt_is_tried_again_after_doubled_waits(schedule, ends, tmp_path):
    ends += [-9, 1, 0]
    waits: list[float] = []
    tick = ticks.run_tick(schedule, wait=waits.append)
    assert tick.outcome == "succeeded"
    assert len(set(tick.runs)) == 3
    assert waits == [10, 20]
    log = (schedule.folder / "logs" / tick.log).read_text()
    assert (
        "--- failed: killed by SIGKILL, perhaps for want of memory; the next attempt in 10 s" in log
    )
    assert "--- failed: reason 1; the next attempt in 20 s" in log
    assert alerts(tmp_path) == ""


def test_when_every_attempt_fails_the_user_is_told(schedule, ends, tmp_path):
    ends += [1, 1, -9]
    with pytest.raises(ScheduledRunError, match="schedule nightly failed: killed by SIGKILL"):
        ticks.run_tick(schedule, wait=lambda seconds: None)
    told = alerts(tmp_path)
    assert told.startswith("The scheduled fine-tuning nightly on ")
    assert " failed\n" in told
    for fact in (
        "killed by SIGKILL",
        "why it ran     first run",
        "attempts       3",
        "last success   none yet",
        str(schedule.config_path),
        f"{schedule.folder}/logs/",
        "--run-scheduled nightly",
    ):
        assert fact in told, fact
    (tick,) = read_history(schedule.folder)
    assert (tick.outcome, len(tick.runs)) == ("failed", 3)


def test_what_the_user_must_mend_is_told_at_once(schedule, ends, tmp_path):
    ends += [3]
    with pytest.raises(ScheduledRunError, match="reason 3"):
        ticks.run_tick(schedule, wait=lambda seconds: pytest.fail("waited"))
    assert "attempts       1" in alerts(tmp_path)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.id=gone", "model.id: no folder gone"),
        ("data.sources.0.source=gone.jsonl", "data source gone.jsonl: no such file"),
        ("train.epochz=3", "--set train.epochz=3: train.epochz: unknown key"),
    ],
)
def test_what_is_missing_before_training_is_told_too(schedule, tmp_path, override, reason):
    held_out = f"data.held_out.source={tmp_path}/stdlib_qa/held_out.jsonl"
    broken = schedule.model_copy(update={"overrides": [override, held_out]})
    with pytest.raises(ScheduledRunError, match="nightly failed"):
        ticks.run_tick(broken)
    assert reason in alerts(tmp_path)
    assert "log            none: it did not begin" in alerts(tmp_path)
    (tick,) = read_history(schedule.folder)
    assert reason in tick.reason


def test_an_alert_command_set_later_is_known_when_the_configuration_breaks(
    schedule, ends, make_schedule, tmp_path
):
    make_schedule()  # as it was scheduled: without an alert command
    ends += [0]
    ticks.run_tick(read_schedule("nightly"))
    (tmp_path / "config.yaml").write_text("model: {")
    with pytest.raises(ScheduledRunError):
        ticks.run_tick(read_schedule("nightly"))
    assert "is not valid YAML" in alerts(tmp_path)


def test_the_hub_out_of_reach_is_no_change_and_is_asked_again(schedule, ends, monkeypatch):
    answers: list[Exception | None] = [HubError("down"), None]
    real = ticks.take_inputs

    def take_inputs(config):
        answer = answers.pop(0)
        if answer:
            raise answer
        return real(config)

    monkeypatch.setattr(ticks, "take_inputs", take_inputs)
    waits: list[float] = []
    ends += [0]
    assert ticks.run_tick(schedule, wait=waits.append).outcome == "succeeded"
    assert waits == [10]


def test_a_history_that_cannot_be_written_does_not_silence_the_alert(
    schedule, ends, tmp_path, monkeypatch
):
    def full(folder, tick):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ticks, "append_tick", full)
    ends += [0]
    with pytest.raises(ScheduledRunError, match="No space left on device"):
        ticks.run_tick(schedule)
    assert "It could not be recorded in" in alerts(tmp_path)


def test_stopping_it_is_recorded_and_raises_no_alarm(schedule, monkeypatch, tmp_path):
    def stopped(schedule, run, log, locks, max_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(ticks, "run_attempt", stopped)
    with pytest.raises(KeyboardInterrupt):
        ticks.run_tick(schedule)
    (tick,) = read_history(schedule.folder)
    assert (tick.outcome, tick.reason) == ("interrupted", "first run; stopped on request")
    assert alerts(tmp_path) == ""


def test_only_the_newest_logs_are_kept(schedule, ends, tmp_path):
    logs = schedule.folder / "logs"
    logs.mkdir()
    for day in range(1, 6):
        (logs / f"2026010{day}-030000.log").touch()
    override = {"overrides": ["schedule.keep_logs=3"]}
    ends += [0]
    tick = ticks.run_tick(schedule.model_copy(update=override))
    assert sorted(path.name for path in logs.iterdir()) == [
        "20260104-030000.log",
        "20260105-030000.log",
        tick.log,
    ]


def test_old_outputs_are_pruned_but_never_because_tidying_failed(
    schedule, ends, monkeypatch, caplog
):
    def broken(history, policy, before):
        raise PermissionError("outputs")

    monkeypatch.setattr(ticks, "prune", broken)
    ends += [0]
    assert ticks.run_tick(schedule).outcome == "succeeded"
    assert "tidying up: outputs" in caplog.text


def test_a_failure_is_told_once_a_cause_and_its_end_too(schedule, ends, tmp_path):
    ends += [3, 3, 4, 0]
    for _ in range(3):
        with pytest.raises(ScheduledRunError):
            ticks.run_tick(schedule)
    assert [line for line in alerts(tmp_path).splitlines() if line.startswith("reason")] == [
        "reason 3",
        "reason 4",
    ]
    ticks.run_tick(schedule)
    assert "works again\n\nThe call of now: succeeded, first run.\nIt lasted" in alerts(tmp_path)
    before = alerts(tmp_path)
    ticks.run_tick(schedule)
    assert alerts(tmp_path) == before


def test_calls_that_overlap_again_and_again_are_told_and_so_is_their_end(schedule, ends, tmp_path):
    ends += [0]
    with schedule_lock(schedule.folder):
        for _ in range(2):
            ticks.run_tick(schedule)
        assert alerts(tmp_path) == ""
        for _ in range(4):
            ticks.run_tick(schedule)
        assert alerts(tmp_path).count("3 calls in a row found the run before them") == 1
    ticks.run_tick(schedule)
    assert alerts(tmp_path).count("has ended: its calls overlap no more") == 1
    assert not list((schedule.folder / "incidents").iterdir())


def test_an_attempt_has_the_time_that_is_configured_and_is_not_tried_again(
    schedule, monkeypatch, tmp_path
):
    def too_long(schedule, run, log, locks, max_seconds):
        assert max_seconds == 4000
        raise RanTooLongError("it did not end within schedule.max_run_seconds")

    monkeypatch.setattr(ticks, "run_attempt", too_long)
    with pytest.raises(ScheduledRunError, match="did not end within"):
        ticks.run_tick(schedule, wait=lambda seconds: pytest.fail("waited"))
    assert "it did not end within schedule.max_run_seconds" in alerts(tmp_path)


@pytest.mark.parametrize("queue", ["host", None])
def test_training_waits_for_its_turn_on_the_host(schedule, ends, tmp_path, queue):
    settings = f"schedule.queue={queue or 'null'}"
    schedule = schedule.model_copy(update={"overrides": [settings]})
    ends += [0]
    waits = []
    with (tmp_path / "llm-engineering-finetuning-host.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def wait(seconds):
            waits.append(seconds)
            fcntl.flock(other, fcntl.LOCK_UN)

        assert ticks.run_tick(schedule, wait=wait).outcome == "succeeded"
    assert len(waits) == (1 if queue else 0)


def test_calls_that_left_no_trace_are_told_once(make_schedule, schedule, ends, tmp_path):
    now = datetime.now(UTC)
    made = schedule.model_copy(
        update={"cron": "*/10 * * * *", "created": (now - timedelta(hours=3)).isoformat()}
    )
    ends += [0]
    ticks.run_tick(made)
    assert re.search(r"missed 1[678] call", alerts(tmp_path))
    assert "the host was off, no cron daemon ran" in alerts(tmp_path)
    before = alerts(tmp_path)
    ticks.run_tick(made)
    assert alerts(tmp_path) == before
    orchestrated = made.model_copy(update={"clock": "orchestrator", "name": "other"})
    write_schedule(orchestrated)
    ends += [0]
    ticks.run_tick(orchestrated)
    assert alerts(tmp_path) == before


def test_a_sign_of_life_is_sent_after_a_call_that_went_well(schedule, ends, monkeypatch):
    beats = []
    monkeypatch.setattr(ticks, "send_heartbeat", lambda settings: beats.append(settings))
    ends += [3, 0]
    with pytest.raises(ScheduledRunError):
        ticks.run_tick(schedule)
    with schedule_lock(schedule.folder):
        ticks.run_tick(schedule)
    assert beats == []
    assert ticks.run_tick(schedule).outcome == "succeeded"
    assert ticks.run_tick(schedule).outcome == "skipped"
    assert len(beats) == 2


def test_names_of_runs_are_never_the_same_even_in_one_second(schedule, ends):
    ends += [0, 0, 0]
    names = [ticks.run_tick(schedule, force=True).runs[-1] for _ in range(3)]
    assert len(set(names)) == 3
