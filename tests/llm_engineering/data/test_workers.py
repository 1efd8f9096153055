"""Other processes: the same data, digests and errors in the same order, whoever worked on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data import workers as workers_module
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.workers import Workers, usable_cores
from llm_engineering.errors import DataError

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[[FinetuningConfig], PreparedDataset]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started for few rows too."""
    monkeypatch.setattr(workers_module, "ALONE_ROWS", 0)


# A test's own functions are not to be had in other processes: batches are code, the task is eval.
PROCESS = "__import__('os').getpid()"
KILLED = "__import__('os').kill(__import__('os').getpid(), 9)"
REFUSED = "{}.throw(__import__('llm_engineering.errors').errors.DataError('batch 3'))".format(
    "(_ for _ in ())"
)


@pytest.mark.usefixtures("at_once")
def test_others_work_and_the_order_stays() -> None:
    with Workers(2) as workers:
        done = list(workers.map(eval, (f"{n}, {PROCESS}" for n in range(40)), rows=40, size=0))

    assert [number for _, (number, _) in done] == list(range(40))
    assert [batch.partition(",")[0] for batch, _ in done] == [str(n) for n in range(40)]
    assert os.getpid() not in {process for _, (_, process) in done}


def test_few_rows_and_one_process_stay_here() -> None:
    for workers, rows in ((Workers(2), 40), (Workers(1), 10**9)):
        with workers:
            done = list(workers.map(eval, [PROCESS] * 3, rows=rows, size=0))
        assert {process for _, process in done} == {os.getpid()}


@pytest.mark.usefixtures("at_once")
def test_batches_are_taken_a_few_at_a_time() -> None:
    taken: list[int] = []

    def batches() -> Any:
        for number in range(100):
            taken.append(number)
            yield PROCESS

    with Workers(2) as workers:
        results = workers.map(eval, batches(), rows=100, size=0)
        next(results)
        assert len(taken) <= 6


@pytest.mark.usefixtures("at_once")
def test_an_error_of_theirs_is_raised_here_behind_what_came_before() -> None:
    seen: list[int] = []
    batches = ["0", "1", "2", REFUSED, "4"]
    with Workers(2) as workers, pytest.raises(DataError, match=r"^batch 3$"):
        seen.extend(result for _, result in workers.map(eval, batches, rows=6, size=0))

    assert seen == [0, 1, 2]


@pytest.mark.usefixtures("at_once")
def test_a_process_that_is_killed_is_said() -> None:
    with Workers(2) as workers, pytest.raises(DataError, match=r"set data\.num_proc lower"):
        list(workers.map(eval, [KILLED] * 6, rows=6, size=0))


@pytest.mark.usefixtures("at_once")
def test_what_cannot_be_handed_over_is_done_here_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Workers(2) as workers, caplog.at_level("INFO", logger="llm_engineering"):
        done = list(workers.map(lambda batch: os.getpid(), range(3), rows=3, size=0))

    assert {process for _, process in done} == {os.getpid()}
    assert "one process prepares the data" in caplog.text


@pytest.mark.parametrize(("rows", "size"), [(20_001, 0), (1, 10_000_001)])
def test_many_rows_and_long_ones_pay(rows: int, size: int) -> None:
    assert Workers(2).pays(rows, size)
    assert not Workers(2).pays(min(rows, 20_000), min(size, 10_000_000))
    assert not Workers(1).pays(rows, size)


def test_cores_are_those_that_may_be_used() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("refused", [False, True])
def test_the_data_is_the_same_whoever_prepares_it(
    refused: bool,
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Several sources and forms, bad rows, repeats, near ones, a long row: all in small batches."""
    from llm_engineering.data.select import check

    monkeypatch.setattr(check, "BATCH_ROWS", 7)
    rows: list[Any] = [
        {"instruction": " ".join([str(n % 50)] * 9), "response": f"It is so, {n % 100}."}
        for n in range(120)
    ]
    rows[20], rows[71], rows[90] = "{ broken", {"instruction": "a"}, {"text": "of another form"}
    for n in (100, 102, 103):  # of which one at least is trained
        rows[n] = {"instruction": f"Say it {n} times.", "response": "word " * 200}
    rows[101] = {"instruction": "word " * 200, "response": "Too long."}
    first = write_jsonl(tmp_path / "first.jsonl", rows)
    second = tmp_path / "second.csv"
    second.write_text("prompt,completion\n" + "".join(f"q{n},a{n}\n" for n in range(60)))
    config = {
        "data.sources": [
            {"source": str(first), "weight": 2.0},
            {"source": str(second), "weight": 1.0},
        ],
        "data.held_out": {"fraction": 0.2, "max_rows": 15},
        "data.near_duplicates": 0.8,
        "data.on_leaks": "drop",
        "data.max_truncated_share": 0.1,
        "data.on_bad_rows": "error" if refused else "skip",
    }

    def prepared(processes: int) -> PreparedDataset:
        return prepare(make_config({**config, "data.num_proc": processes}))

    if refused:
        reasons = []
        for processes in (1, 3):
            with pytest.raises(DataError) as caught:
                prepared(processes)
            reasons.append(str(caught.value))
        assert reasons[0] == reasons[1]
        assert "3 bad row(s)" in reasons[0]
        return
    alone, others = prepared(1), prepared(3)
    assert others.summary == alone.summary
    assert alone.summary.bad_row_count == 4
    assert alone.summary.train.truncated_rows > 0
    assert alone.summary.duplicates is not None
    assert alone.summary.duplicates.near > 0
    examples = [row.origin for row in alone.summary.examples]
    assert len(examples) == 3  # one a source, and the one that was cut
    assert examples[0] == alone.split("train")["origin"][0]
    for name in ("train", "held_out"):
        assert others.split(name).to_dict() == alone.split(name).to_dict()


@pytest.mark.usefixtures("at_once")
def test_others_do_the_checking_and_the_tokenizing(
    prepare: Prepare, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tasks = Workers.map, []

    def spied(self: Workers, task: Any, batches: Any, **counts: int) -> Any:
        for batch, result in real(self, task, batches, **counts):
            tasks.append(type(task).__name__)
            yield batch, result

    from llm_engineering.data.select import check

    monkeypatch.setattr(check, "BATCH_ROWS", 20)
    monkeypatch.setattr(Workers, "map", spied)
    prepare(make_config({"data.num_proc": 2, "data.near_duplicates": 0.8}))

    assert {"CheckRows", "_Sign", "PrepareBatch"} == set(tasks)
