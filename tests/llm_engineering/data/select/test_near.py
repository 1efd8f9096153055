"""Rows that are nearly the same, by whatever of them is compared."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from llm_engineering.data.rows.keys import shingles
from llm_engineering.data.rows.message import Message, from_dicts, to_dicts
from llm_engineering.data.rows.row_store import RowStore, StoredRow
from llm_engineering.data.select.duplicates import Matches
from llm_engineering.data.select.near import near_rows

Conversation = list[Message]

TEXT = "The quick brown fox jumps over the lazy dog and runs away through the old dark forest"


def pairs(found: Matches) -> dict[int, int]:
    return dict(zip(found.rows.tolist(), found.others.tolist(), strict=True))


@pytest.fixture
def store(tmp_path: Path) -> RowStore[Conversation]:
    store = RowStore(tmp_path / "rows.arrow", to_dicts, from_dicts)
    texts = [TEXT, "Something else entirely, on another matter", TEXT.replace("quick", "quack")]
    for number, text in enumerate([*texts, TEXT[:30]], start=1):
        store.add(f"rows.jsonl:{number}", [Message("user", text), Message("assistant", "Yes.")])
    store.close()
    return store


def test_near_rows_are_found_and_others_are_not(store: RowStore[Conversation]) -> None:
    every = numpy.arange(4)

    def whole(row: StoredRow[Conversation]) -> set[str]:
        return shingles(row.item)

    def beginning(row: StoredRow[Conversation]) -> set[str]:
        return set(sorted(shingles(row.item))[:1])

    assert pairs(near_rows(store, every, 0.7, whole)) == {2: 0}
    assert pairs(near_rows(store, every, 0.98, whole)) == {}
    assert pairs(near_rows(store, every, 0.98, beginning)) == {2: 0}
    assert pairs(near_rows(store, every[:2], 0.7, whole, others=every[2:])) == {0: 2}
