"""Which rows count as the same, exactly and nearly, and how they are named."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from llm_engineering.data.rows.row_store import Spool, SpooledRow
from llm_engineering.data.select.duplicates import (
    Pairs,
    describe,
    equal_rows,
    near_rows,
    opposite_rows,
    pieces,
    shared_rows,
    text_key,
)

TEXT = "The quick brown fox jumps over the lazy dog and runs away through the old dark forest"


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]


def pairs(found: Pairs) -> dict[int, int]:
    return dict(zip(found.rows.tolist(), found.others.tolist(), strict=True))


def keys(*values: int) -> numpy.ndarray:
    return numpy.array(values, dtype="uint64")


@pytest.mark.parametrize(
    ("text", "same"),
    [("the  QUICK\n fox ", True), ("The quick fox", True), ("The quick foxes", False)],
)
def test_case_and_spaces_do_not_make_another_text(text: str, same: bool) -> None:
    assert (text_key(said("The quick fox")) == text_key(said(text))) is same


def test_a_plain_text_is_the_same_as_its_conversation() -> None:
    text = [{"role": "text", "content": "The quick fox\nyes."}]

    assert text_key(text) == text_key(said("The quick fox"))


def test_every_repeat_is_paired_with_the_first() -> None:
    rows = numpy.array([2, 4, 6, 8, 9])

    assert pairs(equal_rows(rows, keys(7, 5, 7, 7, 5))) == {6: 2, 8: 2, 9: 4}
    assert pairs(equal_rows(rows, keys(1, 2, 3, 4, 5))) == {}


def test_shared_rows_are_paired_with_the_first_of_the_others() -> None:
    rows, others = numpy.array([0, 1, 2]), numpy.array([7, 8, 9])

    assert pairs(shared_rows(rows, keys(1, 2, 1), others, keys(3, 1, 1))) == {0: 8, 2: 8}


def test_opposite_rows_differ_in_the_last_bit_alone() -> None:
    rows = numpy.array([2, 4, 6, 8, 9])

    assert pairs(opposite_rows(rows, keys(6, 4, 7, 6, 2**64 - 2))) == {2: 6, 6: 2, 8: 6}
    assert pairs(opposite_rows(rows, keys(6, 6, 8, 8, 10))) == {}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "rows.arrow")
    texts = [TEXT, "Something else entirely, on another matter", TEXT.replace("quick", "quack")]
    for number, text in enumerate([*texts, TEXT[:30]], start=1):
        spool.add(f"rows.jsonl:{number}", said(text))
    spool.close()
    return spool


def test_near_rows_are_found_and_others_are_not(spool: Spool) -> None:
    every = numpy.arange(4)

    def whole(row: SpooledRow) -> set[str]:
        return pieces(row.item)

    def beginning(row: SpooledRow) -> set[str]:
        return set(sorted(pieces(row.item))[:1])

    assert pairs(near_rows(spool, every, 0.7, whole)) == {2: 0}
    assert pairs(near_rows(spool, every, 0.98, whole)) == {}
    assert pairs(near_rows(spool, every, 0.98, beginning)) == {2: 0}
    assert pairs(near_rows(spool, every[:2], 0.7, whole, others=every[2:])) == {0: 2}


def one(row: int, other: int) -> Pairs:
    return Pairs(numpy.array([row]), numpy.array([other]))


def test_repeats_are_named_on_both_sides(spool: Spool) -> None:
    found = describe(spool, one(3, 1), one(2, 0), dropped=True)

    assert (found.equal, found.near, found.count, found.dropped) == (1, 1, 2, True)
    assert found.first == ["rows.jsonl:4 = rows.jsonl:2", "rows.jsonl:3 ~ rows.jsonl:1"]
    found = describe(spool, one(3, 1), one(2, 0), dropped=False, sign="!=")
    assert found.first[0] == "rows.jsonl:4 != rows.jsonl:2"
