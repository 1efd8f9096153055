"""Pruning: only what a schedule made, never production, the newest success or a run under way."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from llm_engineering.configuration.schedule import RetentionSettings
from llm_engineering.registry.stages import promote_by_hand
from llm_engineering.scheduling.history import Tick
from llm_engineering.scheduling.retention import judge, prune, versions_in_use

DAY = 86_400
NOW = time.time()
POLICY = RetentionSettings(keep_runs=1, keep_days=30, keep_interrupted_days=7)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def finished(outputs: Path, name: str, days: int) -> Tick:
    folder = outputs / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    os.utime(folder, (NOW - days * DAY, NOW - days * DAY))
    return Tick(started="", outcome="succeeded", runs=[name], output_dir=outputs)


def interrupted(outputs: Path, name: str, days: int) -> Tick:
    folder = outputs / ".work" / name
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "lock").touch()
    for path in (folder / "lock", folder / "checkpoints", folder):
        os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return Tick(started="", outcome="failed", runs=[name], output_dir=outputs)


def pruned(ticks: list[Tick], *production: str, policy: RetentionSettings = POLICY) -> list[str]:
    used = dict.fromkeys(production, "production")
    return [path.name for path in prune(ticks, policy, now=NOW, in_use=lambda: used)]


def test_old_runs_beyond_the_newest_go(outputs):
    ticks = [finished(outputs, name, days) for name, days in (("a", 90), ("b", 60), ("c", 40))]
    assert pruned(ticks) == ["a", "b"]
    assert [path.name for path in outputs.iterdir() if path.name != ".work"] == ["c"]
    assert list((outputs / ".work").iterdir()) == []
    assert pruned(ticks) == []


def test_young_runs_stay_whatever_their_number(outputs):
    ticks = [finished(outputs, name, days) for name, days in (("a", 31), ("b", 29), ("c", 1))]
    assert pruned(ticks) == ["a"]


def test_a_production_version_stays_whatever_its_age(outputs):
    ticks = [finished(outputs, name, days) for name, days in (("a", 900), ("b", 800), ("c", 1))]
    assert pruned(ticks, "a") == ["b"]
    assert (outputs / "a" / "manifest.json").is_file()


def test_the_newest_success_stays_where_newer_runs_failed(outputs):
    ticks = [finished(outputs, name, days) for name, days in (("a", 900), ("b", 800), ("c", 700))]
    ticks[2].outcome = "failed"  # saved, and failed after that
    assert pruned(ticks) == ["a"]
    assert (outputs / "b").is_dir()


def test_what_latest_points_at_stays(outputs):
    ticks = [finished(outputs, name, days) for name, days in (("a", 900), ("b", 800))]
    (outputs / "latest").symlink_to("a")
    assert pruned(ticks) == []


def test_what_others_made_in_the_same_folder_stays(outputs):
    finished(outputs, "by-hand", 900)
    ticks = [finished(outputs, "a", 800), finished(outputs, "b", 700)]
    assert pruned(ticks) == ["a"]
    assert (outputs / "by-hand").is_dir()


def test_nothing_goes_where_zenml_does_not_answer(outputs, caplog):
    ticks = [finished(outputs, name, days) for name, days in (("a", 900), ("b", 800))]

    def no_answer() -> dict[str, str]:
        raise ConnectionError("refused")

    assert prune(ticks, POLICY, now=NOW, in_use=no_answer) == []
    assert (outputs / "a").is_dir()
    assert "nothing was pruned: ZenML cannot say what is in production (refused)" in caplog.text


def test_unproven_runs_go_as_interrupted_ones_do(outputs):
    ticks = [Tick(started="", outcome="failed", runs=[n], output_dir=outputs) for n in ("x", "y")]
    for name, days in (("x-unproven", 8), ("y-unproven", 6), ("by-hand-unproven", 900)):
        (outputs / name / "adapter").mkdir(parents=True)
        os.utime(outputs / name, (NOW - days * DAY, NOW - days * DAY))
    assert pruned(ticks) == ["x-unproven"]
    assert sorted(path.name for path in outputs.glob("*-unproven")) == [
        "by-hand-unproven",
        "y-unproven",
    ]


def test_old_checkpoints_go_unless_a_process_works_on_them(outputs):
    ticks = [interrupted(outputs, name, days) for name, days in (("x", 8), ("y", 6), ("z", 8))]
    with (outputs / ".work" / "z" / "lock").open("r") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert pruned(ticks) == ["x"]
    assert (outputs / ".work" / "y").is_dir()
    assert (outputs / ".work" / "z").is_dir()


def test_abandoned_work_goes_whoever_began_it_unless_a_process_works_on_it(outputs):
    ticks = [finished(outputs, "a", 1)]
    for name in ("by-hand", "marked"):
        interrupted(outputs, name, 8)
    (outputs / ".work" / "unlocked").mkdir()
    os.utime(outputs / ".work" / "unlocked", (NOW - 8 * DAY, NOW - 8 * DAY))
    with (outputs / ".work" / "marked.running").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)  # a SageMaker job is followed so, without a lock inside
        assert pruned(ticks) == ["by-hand", "unlocked"]


def test_what_this_schedule_promoted_stays_whatever_zenml_says(outputs):
    """A ZenML that is another's, as where the environment names another store, knows of none."""
    ticks = [finished(outputs, name, 900 - day) for day, name in enumerate("abcd")]
    for tick in ticks[:3]:
        tick.promoted = True
    assert pruned(ticks) == ["a"]


@pytest.mark.parametrize("days", [1, -8])
def test_a_clock_that_jumped_removes_nothing(outputs, days):
    before = NOW + days * DAY
    ticks = [finished(outputs, name, 900) for name in "ab"]
    assert prune(ticks, POLICY, before=before, now=NOW, in_use=dict) == []
    assert [path.name for path in prune(ticks, POLICY, before=NOW - DAY, now=NOW, in_use=dict)] == [
        "a"
    ]


def test_every_folder_is_told_why_it_stays(outputs):
    ticks = [finished(outputs, name, 900) for name in ("a", "b", "c", "d")]
    ticks += [finished(outputs, "young", 1), finished(outputs, "newest", 1)]
    interrupted(outputs, "work", 2)
    (outputs / "latest").symlink_to("c")
    used = {"a": "production", "b": "rollback target"}
    assert {one.folder.name: one.reason for one in judge(ticks, POLICY, used, NOW)} == {
        "a": "production",
        "b": "rollback target",
        "c": "latest",
        "d": "",
        "young": "younger than 30 d",
        "newest": "newest success",
        "work": "younger than 7 d",
    }


def test_zenml_is_asked_for_production_and_its_rollback_target(model, add_version):
    for name in (f"{model}-1", f"{model}-2", f"{model}-3"):
        promote_by_hand(model, add_version(name))
    used = versions_in_use()
    assert used[f"{model}-3"] == "production"
    assert used[f"{model}-2"] == "rollback target"
    assert f"{model}-1" not in used
