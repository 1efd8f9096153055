"""A schedule's file, and what is no name for one."""

from __future__ import annotations

import pytest

from llm_engineering.errors import ConfigError
from llm_engineering.scheduling.schedules import (
    delete_schedule,
    find_schedule,
    read_schedule,
    schedule_names,
)


def test_written_read_listed_and_deleted(make_schedule):
    first = make_schedule(overrides=["run.seed=1"])
    make_schedule(name="weekly")
    assert read_schedule("nightly") == first
    assert schedule_names() == ["nightly", "weekly"]
    delete_schedule("nightly")
    assert find_schedule("nightly") is None
    with pytest.raises(ConfigError, match="no schedule is called nightly; there is: weekly"):
        read_schedule("nightly")


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", ".x", "x" * 65, "a\n"])
def test_names_that_are_no_folder_names(name):
    with pytest.raises(ConfigError, match="--name"):
        read_schedule(name)


def test_a_broken_file_is_named(make_schedule):
    file = make_schedule().folder / "schedule.json"
    file.write_text('{"name": "nightly"')
    with pytest.raises(ConfigError, match=f"{file}: cannot be read"):
        read_schedule("nightly")
