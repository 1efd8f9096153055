"""Which rows count as the same by their keys, and how those that repeat are named."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest

from llm_engineering.data.rows.row_store import RowStore
from llm_engineering.data.select import duplicates
from llm_engineering.data.select.duplicates import (
    Matches,
    describe,
    equal_rows,
    no_rows,
    opposite_rows,
    shared_rows,
)


def pairs(found: Matches) -> dict[int, int]:
    return dict(zip(found.rows.tolist(), found.others.tolist(), strict=True))


def keys(*values: int) -> numpy.ndarray:
    return numpy.array(values, dtype="uint64")


@pytest.fixture(params=[1, 2, 3, 2**20], autouse=True)
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are looked up so many at a time."""
    monkeypatch.setattr(duplicates, "_CHUNK", request.param)


def test_every_repeat_is_paired_with_the_first() -> None:
    rows = numpy.array([2, 4, 6, 8, 9])

    assert pairs(equal_rows(rows, keys(7, 5, 7, 7, 5))) == {6: 2, 8: 2, 9: 4}
    assert pairs(equal_rows(rows, keys(1, 2, 3, 4, 5))) == {}
    assert pairs(equal_rows(rows, keys(9, 3, 8, 3, 9))) == {8: 4, 9: 2}
    assert pairs(equal_rows(rows, keys(9, 3, 8, 3, 4))) == {8: 4}  # keys beyond all that repeat


def test_shared_rows_are_paired_with_the_first_of_the_others() -> None:
    rows, others = numpy.array([0, 1, 2]), numpy.array([7, 8, 9])

    assert pairs(shared_rows(rows, keys(1, 2, 1), others, keys(3, 1, 1))) == {0: 8, 2: 8}


def test_opposite_rows_differ_in_the_last_bit_alone() -> None:
    rows = numpy.array([2, 4, 6, 8, 9])

    assert pairs(opposite_rows(rows, keys(6, 4, 7, 6, 2**64 - 2))) == {2: 6, 6: 2, 8: 6}
    assert pairs(opposite_rows(rows, keys(6, 6, 8, 8, 10))) == {}


def one(row: int, other: int) -> Matches:
    return Matches(numpy.array([row]), numpy.array([other]))


def test_repeats_are_named_on_both_sides(stored: Callable[..., RowStore[str]]) -> None:
    store = stored(["said"] * 4)

    found = describe(store, one(3, 1), one(2, 0), dropped=True)

    assert (found.equal, found.near, found.count, found.dropped) == (1, 1, 2, True)
    assert found.first == ["rows.jsonl:4 = rows.jsonl:2", "rows.jsonl:3 ~ rows.jsonl:1"]
    found = describe(store, one(3, 1), one(2, 0), dropped=False, sign="!=")
    assert found.first[0] == "rows.jsonl:4 != rows.jsonl:2"


def test_no_rows_are_no_matches() -> None:
    nothing = numpy.zeros(0, dtype=int)

    for found in (
        no_rows(),
        equal_rows(nothing, keys()),
        shared_rows(nothing, keys(), nothing, keys()),
    ):
        assert pairs(found) == {}
        assert found.rows.dtype == found.others.dtype == int
    assert pairs(shared_rows(numpy.array([1, 2]), keys(1, 2), nothing, keys())) == {}


@pytest.mark.parametrize(
    ("equal", "near", "named"), [(25, 9, (20, 0)), (15, 9, (15, 5)), (2, 25, (2, 18))]
)
def test_the_first_twenty_are_named(
    equal: int, near: int, named: tuple[int, int], stored: Callable[..., RowStore[str]]
) -> None:
    store = stored(["said"] * 60)

    found = describe(
        store, Matches(numpy.arange(30, 30 + equal), numpy.arange(equal)),
        Matches(numpy.arange(30, 30 + near), numpy.arange(near)), dropped=False,
    )  # fmt: skip

    assert (found.equal, found.near) == (equal, near)
    assert found.first == [
        *(f"rows.jsonl:{31 + n} = rows.jsonl:{1 + n}" for n in range(named[0])),
        *(f"rows.jsonl:{31 + n} ~ rows.jsonl:{1 + n}" for n in range(named[1])),
    ]
