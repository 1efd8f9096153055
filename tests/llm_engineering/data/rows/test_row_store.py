"""Rows on disk: they come back as they went, by their numbers, and few are in memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy
import pytest

from llm_engineering.data.read.row import Row
from llm_engineering.data.read.sources import read_rows
from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.row_store import RowStore, StoredRow


def said(number: int) -> Conversation:
    return Conversation([Message("user", f"Größe {number}\n日本")])


def stored(path: Path, count: int) -> RowStore[Conversation]:
    store = RowStore(path, Conversation.to_dict, Conversation.from_dict)
    for number in range(count):
        store.add(f"rows.jsonl:{number}", said(number))
    store.close()
    return store


@pytest.mark.parametrize(
    "chosen", [[], [0], [0, 999, 1000, 2499], list(range(2500)), list(range(1200, 1300))]
)
def test_chosen_rows_come_back_in_order(chosen: list[int], tmp_path: Path) -> None:
    store = stored(tmp_path / "rows.arrow", 2500)

    found = [row for batch in store.read(numpy.array(chosen, dtype=int)) for row in batch]

    assert store.rows == 2500
    assert found == [
        StoredRow(
            number,
            f"rows.jsonl:{number}",
            json.dumps(said(number).to_dict(), ensure_ascii=False),
            said(number),
        )
        for number in chosen
    ]
    assert [row.item for row in found] == [said(number) for number in chosen]


def test_origins_of_a_few_rows(tmp_path: Path) -> None:
    store = stored(tmp_path / "rows.arrow", 1500)

    assert store.origins([1200, 3, 3]) == {3: "rows.jsonl:3", 1200: "rows.jsonl:1200"}


def test_of_many_long_rows_few_are_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number in range(400):
            file.write(json.dumps({"text": f"{number}" + "x" * 200_000}) + "\n")
    assert path.stat().st_size > 80_000_000

    tracemalloc.start()
    try:
        store = RowStore(tmp_path / "rows.arrow", Conversation.to_dict, Conversation.from_dict)
        for row in read_rows(str(path)):
            assert isinstance(row, Row)
            store.add(row.origin, Conversation([Message("text", str(row.values["text"]))]))
        store.close()
        read = sum(len(batch) for batch in store.read(numpy.arange(400)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert read == 400
    assert peak < 30_000_000
