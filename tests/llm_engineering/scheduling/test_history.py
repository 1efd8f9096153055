"""The history survives what a crash or a full disk does to it, and does not grow for ever."""

from __future__ import annotations

from datetime import UTC, datetime

from llm_engineering.scheduling import history
from llm_engineering.scheduling.history import (
    Tick,
    append_tick,
    last_success,
    newest_start,
    read_history,
    shorten_history,
)


def test_an_unfinished_line_is_passed_over(tmp_path):
    assert read_history(tmp_path) == []
    append_tick(tmp_path, Tick(started="1", outcome="succeeded", runs=["a"]))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"started": "2", "outc\n')
    append_tick(tmp_path, Tick(started="3", outcome="skipped"))
    ticks = read_history(tmp_path)
    assert [tick.started for tick in ticks] == ["1", "3"]
    assert last_success(ticks) is ticks[0]


def test_the_newest_call_is_the_latest_that_is_not_of_the_future():
    hours = {"running": 3, "overlapping": 4, "of a clock that was ahead": 30}
    starts = [
        f"2026-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00+00:00" for hour in hours.values()
    ]
    ticks = [Tick(started=starts[1]), Tick(started=starts[0]), Tick(started=starts[2])]
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert newest_start(ticks, now) == datetime(2026, 1, 1, 4, tzinfo=UTC)
    assert newest_start(ticks, now, "2026-01-01T11:00:00+00:00") == datetime(
        2026, 1, 1, 11, tzinfo=UTC
    )
    assert newest_start([], now) is None


def test_a_long_history_is_shortened_but_keeps_what_is_still_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(history, "KEPT_LINES", 3)
    (tmp_path / "outputs" / "kept").mkdir(parents=True)
    (tmp_path / "outputs" / "bad-unproven").mkdir()  # retention must find it
    outputs = tmp_path / "outputs"
    append_tick(tmp_path, Tick(started="0", outcome="succeeded", runs=["gone"], output_dir=outputs))
    append_tick(tmp_path, Tick(started="1", outcome="succeeded", runs=["kept"], output_dir=outputs))
    append_tick(tmp_path, Tick(started="b", outcome="failed", runs=["bad"], output_dir=outputs))
    append_tick(tmp_path, Tick(started="2", outcome="succeeded", runs=["last"], output_dir=outputs))
    for number in range(3, 5):
        append_tick(tmp_path, Tick(started=str(number), outcome="skipped"))
    shorten_history(tmp_path)
    assert len(read_history(tmp_path)) == 6, "not yet worth it"
    append_tick(tmp_path, Tick(started="6", outcome="skipped"))
    shorten_history(tmp_path)
    assert [t.started for t in read_history(tmp_path)] == ["1", "b", "2", "3", "4", "6"]
