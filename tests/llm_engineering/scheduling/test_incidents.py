"""What is wrong is told once a cause, again after a day, and when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_engineering.configuration.schedule import ScheduleSettings
from llm_engineering.scheduling import incidents as module
from llm_engineering.scheduling.incidents import Incidents

HOUR = 3600.0


class World:
    """A clock that is set by hand, and an alert that may fail."""

    def __init__(self) -> None:
        self.now, self.told, self.works = 1e9, [], True

    def send(self, message: str, settings: ScheduleSettings) -> bool:
        if self.works:
            self.told.append(message)
        return self.works


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(module, "send_alert", made.send)
    return made


@pytest.fixture
def incidents(world: World, tmp_path: Path) -> Incidents:
    return Incidents(tmp_path, ScheduleSettings(), now=lambda: world.now)


def test_the_same_cause_is_told_once_a_day(world, incidents):
    for hour in range(49):
        incidents.open(
            "failed",
            f"a.jsonl:3: run 2026{hour:04d} of a1b2c3d4e{hour}, {hour}.5 GiB free",
            "It failed",
        )
        world.now += HOUR
    assert len(world.told) == 3
    assert "since 24 h, in 25 calls" in world.told[1]
    assert "since 2 d, in 49 calls" in world.told[2]


def test_another_cause_is_told_at_once(world, incidents):
    incidents.open("failed", "the disk is full", "first")
    incidents.open("failed", "a.jsonl:3 is bad", "second")
    incidents.open("failed", "a.jsonl:4 is bad", "third")
    assert world.told == ["first", "second", "third"]


def test_its_end_is_told_and_then_it_is_new_again(world, incidents, tmp_path):
    incidents.close("failed", "never was one")
    incidents.open("failed", "the disk is full", "It failed")
    world.now += 2 * HOUR
    incidents.close("failed", "It works again")
    assert world.told[1].startswith("It works again\nIt lasted 2 h, over 1 call")
    incidents.close("failed", "once is enough")
    incidents.open("failed", "the disk is full", "It failed again")
    assert len(world.told) == 3
    assert list((tmp_path / "incidents").glob("*.part")) == []


def test_what_nobody_heard_is_told_at_the_next_call_and_has_no_end(world, incidents):
    world.works = False
    incidents.open("failed", "the disk is full", "It failed")
    world.works = True
    incidents.open("failed", "the disk is full", "It failed")
    assert len(world.told) == 1
    world.told.clear()
    world.works = False
    incidents.open("overlap", "going on", "It hangs")
    world.works = True
    incidents.close("overlap", "It ended")
    assert world.told == []


def test_a_clock_that_was_put_back_silences_nothing(world, incidents):
    incidents.open("failed", "the disk is full", "It failed")
    world.now -= 400 * 24 * HOUR
    incidents.open("failed", "the disk is full", "It failed")
    assert len(world.told) == 2


def test_where_nothing_can_be_noted_it_is_told_at_every_call(world, incidents, tmp_path):
    (tmp_path / "incidents").touch()
    for _ in range(2):
        incidents.open("failed", "the disk is full", "It failed")
    assert len(world.told) == 2
