"""Rows on disk: they come back as they went, by their numbers, and few are in memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy
import pytest

from llm_engineering.data.read.sources import Row, read_rows
from llm_engineering.data.rows.row_store import Spool, SpooledRow


def said(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Größe {number}\n日本"}]


def spooled(path: Path, count: int) -> Spool:
    spool = Spool(path)
    for number in range(count):
        spool.add(f"rows.jsonl:{number}", said(number))
    spool.close()
    return spool


@pytest.mark.parametrize(
    "chosen", [[], [0], [0, 999, 1000, 2499], list(range(2500)), list(range(1200, 1300))]
)
def test_chosen_rows_come_back_in_order(chosen: list[int], tmp_path: Path) -> None:
    spool = spooled(tmp_path / "rows.arrow", 2500)

    found = [row for batch in spool.read(numpy.array(chosen, dtype=int)) for row in batch]

    assert spool.rows == 2500
    assert found == [
        SpooledRow(number, f"rows.jsonl:{number}", json.dumps(said(number), ensure_ascii=False))
        for number in chosen
    ]
    assert [row.item for row in found] == [said(number) for number in chosen]


def test_origins_of_a_few_rows(tmp_path: Path) -> None:
    spool = spooled(tmp_path / "rows.arrow", 1500)

    assert spool.origins([1200, 3, 3]) == {3: "rows.jsonl:3", 1200: "rows.jsonl:1200"}


def test_of_many_long_rows_few_are_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number in range(400):
            file.write(json.dumps({"text": f"{number}" + "x" * 200_000}) + "\n")
    assert path.stat().st_size > 80_000_000

    tracemalloc.start()
    try:
        spool = Spool(tmp_path / "rows.arrow")
        for row in read_rows(str(path)):
            assert isinstance(row, Row)
            spool.add(row.origin, [{"role": "text", "content": row.values["text"]}])
        spool.close()
        read = sum(len(batch) for batch in spool.read(numpy.arange(400)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert read == 400
    assert peak < 30_000_000
