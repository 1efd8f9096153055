"""Rows that repeat, contradict or leak others to the letter, by keys that say what is equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llm_engineering.data.summary import Repeats

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from llm_engineering.data.rows.row_store import RowNumbers, RowStore

    Keys = NDArray[numpy.uint64]

_SHOWN = 20
_CHUNK = 2**20  # rows


class Matches(NamedTuple):
    """Rows, ascending, and for each of them the row that it repeats; both by their numbers."""

    rows: RowNumbers
    others: RowNumbers


def no_rows() -> Matches:
    """No row repeats another."""
    import numpy

    return Matches(numpy.zeros(0, dtype=int), numpy.zeros(0, dtype=int))


def equal_rows(rows: RowNumbers, keys: Keys) -> Matches:
    """Each row whose key an earlier one has, with the first that has it.

    Args:
        rows: Numbers of the rows, ascending, shape ``(rows,)``.
        keys: Their keys, the same shape.
    """
    import numpy

    ordered = numpy.sort(keys)
    repeated = numpy.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    found = _members(keys, repeated)
    order = numpy.argsort(keys[found], kind="stable")
    positions = found[order]
    begins = numpy.ones(len(positions), dtype=bool)
    begins[1:] = keys[positions[1:]] != keys[positions[:-1]]
    firsts = positions[begins][numpy.cumsum(begins) - 1]
    return _ascending(rows[positions[~begins]], rows[firsts[~begins]])


def shared_rows(rows: RowNumbers, keys: Keys, others: RowNumbers, other_keys: Keys) -> Matches:
    """Each row whose key one of the others has, with the first of those."""
    import numpy

    unique, first = numpy.unique(other_keys, return_index=True)
    found = _members(keys, unique)
    return Matches(rows[found], others[first[unique.searchsorted(keys[found])]])


def opposite_rows(rows: RowNumbers, keys: Keys) -> Matches:
    """Each row of which another has the key but for its last bit, with the first of those.

    Args:
        rows: Numbers of the rows, ascending, shape ``(rows,)``.
        keys: Their keys, the same shape.
    """
    return shared_rows(rows, keys, rows, keys ^ keys.dtype.type(1))


def describe(
    store: RowStore[Any], equal: Matches, near: Matches, *, dropped: bool, sign: str = "="
) -> Repeats:
    """Count repeated rows and name the first of them on both sides.

    Args:
        store: Holds the rows.
        equal: Those that are exactly so.
        near: Those that are nearly so.
        dropped: Whether they are left out.
        sign: Stands between the two sides.
    """
    named = [
        (int(row), int(other), between)
        for matches, between in ((equal, sign), (near, "~"))
        for row, other in zip(matches.rows[:_SHOWN], matches.others[:_SHOWN], strict=True)
    ][:_SHOWN]
    origins = store.origins([number for row, other, _ in named for number in (row, other)])
    return Repeats(
        equal=len(equal.rows),
        near=len(near.rows),
        dropped=dropped,
        first=[f"{origins[row]} {between} {origins[other]}" for row, other, between in named],
    )


def _members(keys: Keys, values: Keys) -> NDArray[numpy.intp]:
    """Positions of the keys that are among the values, which ascend; a part of them at a time."""
    import numpy

    if not len(values):
        return numpy.zeros(0, dtype=int)
    found = []
    for start in range(0, len(keys), _CHUNK):
        part = keys[start : start + _CHUNK]
        near = values.searchsorted(part).clip(max=len(values) - 1)
        found.append(numpy.flatnonzero(values[near] == part) + start)
    return numpy.concatenate([numpy.zeros(0, dtype=int), *found])


def _ascending(rows: RowNumbers, others: RowNumbers) -> Matches:
    order = rows.argsort()
    return Matches(rows[order], others[order])
