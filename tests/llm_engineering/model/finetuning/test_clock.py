"""The seconds of a training: from its first rows to its last step, without what else is done."""

import pytest

from llm_engineering.model.finetuning import clock as module
from llm_engineering.model.finetuning.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """The time, which the device's work of 2 seconds moves on when it is waited for."""
    time = {"now": 100.0, "queued": 0.0}

    def wait():
        time["now"] += time["queued"]
        time["queued"] = 0.0

    monkeypatch.setattr(module.time, "perf_counter", lambda: time["now"])
    monkeypatch.setattr(module, "wait_for_device", wait)
    return time


def test_it_goes_on_from_what_came_before_and_stands_still_in_between(now):
    clock = Clock(7.0)
    now["now"] += 5
    assert clock.seconds == 7.0
    clock.start()
    clock.start()  # at each pass over the data
    now["now"] += 3
    assert clock.seconds == 10.0
    with clock.paused():
        now["now"] += 50
    now["now"] += 1
    assert clock.seconds == 11.0
    clock.stop()
    now["now"] += 9
    assert clock.seconds == 11.0


def test_what_the_device_still_has_to_do_is_trainings(now):
    clock = Clock()
    clock.start()
    now["queued"] = 2.0
    with clock.paused():
        now["now"] += 50
    clock.stop()
    assert clock.seconds == 2.0


def test_a_pause_before_it_runs_does_not_start_it(now):
    clock = Clock()
    with clock.paused():
        now["now"] += 5
    now["now"] += 5
    assert clock.seconds == 0.0
