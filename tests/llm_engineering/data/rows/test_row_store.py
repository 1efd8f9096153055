"""Rows on disk: they come back as they went, by their numbers, and few are in memory."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from pathlib import Path

import numpy
import pytest

from llm_engineering.data.read.row import Row
from llm_engineering.data.read.sources import read_rows
from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.row_store import JsonText, RowStore, StoredRow, to_stored


def said(number: int) -> Conversation:
    return Conversation([Message("user", f"Größe {number}\n日本")])


def text_of(item: Conversation) -> JsonText:
    return JsonText(json.dumps(item.to_dict(), ensure_ascii=False))


def stored(path: Path, count: int, batch: int = 1000) -> RowStore[Conversation]:
    store = RowStore(path, Conversation.from_dict)
    for start in range(0, count, batch):
        numbers = range(start, min(count, start + batch))
        store.add(
            to_stored([f"rows.jsonl:{n}" for n in numbers], [text_of(said(n)) for n in numbers])
        )
    store.close()
    return store


@pytest.mark.parametrize(
    "chosen", [[], [0], [0, 999, 1000, 2499], list(range(2500)), list(range(1200, 1300))]
)
def test_chosen_rows_come_back_in_order(chosen: list[int], tmp_path: Path) -> None:
    store = stored(tmp_path / "rows.arrow", 2500)
    wanted = [
        StoredRow(number, f"rows.jsonl:{number}", text_of(said(number)), said(number))
        for number in chosen
    ]

    assert store.rows == 2500
    assert [row for batch in store.read(numpy.array(chosen, dtype=int)) for row in batch] == wanted
    assert [store.row(number) for number in chosen] == wanted


def test_another_process_can_be_given_a_batch(tmp_path: Path) -> None:
    store = stored(tmp_path / "rows.arrow", 2500)
    chosen = numpy.array([3, 4, 1500])

    given = [pickle.loads(pickle.dumps(batch)) for batch in store.batches(chosen)]

    assert [batch.numbers.tolist() for batch in given] == [[3, 4], [1500]]
    assert [row for batch in given for row in batch.rows(Conversation.from_dict)] == [
        store.row(number) for number in chosen.tolist()
    ]


def test_origins_of_a_few_rows(tmp_path: Path) -> None:
    store = stored(tmp_path / "rows.arrow", 1500)

    assert store.origins([1200, 3, 3]) == {3: "rows.jsonl:3", 1200: "rows.jsonl:1200"}


def test_size_is_that_of_the_texts_about(tmp_path: Path) -> None:
    store = stored(tmp_path / "rows.arrow", 2000)
    texts = sum(len(text_of(said(n)).encode()) + len(f"rows.jsonl:{n}") for n in range(2000))

    assert texts <= store.size_of(numpy.arange(2000)) < texts * 1.3
    assert store.size_of(numpy.arange(20)) == store.size_of(numpy.arange(2000)) // 100


def test_a_removed_store_leaves_no_file(tmp_path: Path) -> None:
    store = stored(tmp_path / "rows.arrow", 10)

    store.remove()

    assert list(tmp_path.iterdir()) == []


def test_of_many_long_rows_few_are_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number in range(400):
            file.write(json.dumps({"text": f"{number}" + "x" * 200_000}) + "\n")
    assert path.stat().st_size > 80_000_000

    tracemalloc.start()
    try:
        store = RowStore(tmp_path / "rows.arrow", Conversation.from_dict)
        for row in read_rows(str(path)):
            assert isinstance(row, Row)
            item = Conversation([Message("text", str(row.values["text"]))])
            store.add(to_stored([row.origin], [text_of(item)]))
        store.close()
        read = sum(len(batch) for batch in store.read(numpy.arange(400)))
        singly = sum(store.row(number).number for number in range(400))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (read, singly) == (400, sum(range(400)))
    assert peak < 30_000_000
