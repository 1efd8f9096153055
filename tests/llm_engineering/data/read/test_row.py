"""Bad rows: all are counted, and the first are kept."""

from __future__ import annotations

from llm_engineering.data.read.row import BadRow, BadRows


def test_the_first_bad_rows_are_kept_and_all_are_counted() -> None:
    bad = BadRows(kept=2)
    rows = [BadRow(f"rows.jsonl:{number}", "is null") for number in range(1, 6)]

    for row in rows:
        bad.add(row)

    assert bad.rows == rows[:2]
    assert bad.count == 5
