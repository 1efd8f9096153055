"""Rows that repeat others: equal ones by a hash of their text, near ones by MinHash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, Field

from llm_engineering.data.rows.conversations import Message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_engineering.data.rows.row_store import Spool, SpooledRow

_SHINGLE = 5  # characters
_PERMUTATIONS, _SEED = 128, 42  # the seed is the index's own; standard error up to 0.05
_SHOWN = 20
_CHUNK = 2**20  # rows


class Pairs(NamedTuple):
    """Rows, ascending, and for each of them the row that it repeats; both by their numbers."""

    rows: NDArray[Any]
    others: NDArray[Any]


class Repeats(BaseModel):
    """Rows that repeat, contradict or leak others: how many, and what was done about them."""

    equal: int = Field(0, description="Rows that are exactly so.")
    near: int = Field(0, description="Rows that are nearly so.")
    dropped: bool = Field(False, description="They were left out of training.")
    first: list[str] = Field([], description="The first of them: file:line = file:line.")

    @property
    def count(self) -> int:
        """All of them."""
        return self.equal + self.near


def text_key(conversation: Sequence[Message]) -> int:
    """A hash of 64 bits of what is said, whatever its case, its spaces and its form.

    Of ten million rows, two different ones share it in one of 370,000 data sets.
    """
    return int.from_bytes(hashlib.blake2b(_plain(conversation).encode(), digest_size=8).digest())


def row_key(value: Any) -> int:
    """A hash of 64 bits of a row, as JSON holds it."""
    text = json.dumps(value, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def pieces(conversation: Sequence[Message]) -> set[str]:
    """Every five characters of what is said, whatever its case and its spaces."""
    text = _plain(conversation)
    return {text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1))}


def no_rows() -> Pairs:
    """No row repeats another."""
    import numpy

    return Pairs(numpy.zeros(0, dtype=int), numpy.zeros(0, dtype=int))


def equal_rows(rows: NDArray[Any], keys: NDArray[Any]) -> Pairs:
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
    places = found[order]
    begins = numpy.ones(len(places), dtype=bool)
    begins[1:] = keys[places[1:]] != keys[places[:-1]]
    firsts = places[begins][numpy.cumsum(begins) - 1]
    return _ascending(rows[places[~begins]], rows[firsts[~begins]])


def shared_rows(
    rows: NDArray[Any], keys: NDArray[Any], others: NDArray[Any], other_keys: NDArray[Any]
) -> Pairs:
    """Each row whose key one of the others has, with the first of those."""
    import numpy

    unique, first = numpy.unique(other_keys, return_index=True)
    found = _members(keys, unique)
    return Pairs(rows[found], others[first[unique.searchsorted(keys[found])]])


def opposite_rows(rows: NDArray[Any], keys: NDArray[Any]) -> Pairs:
    """Each row of which another has the key but for its last bit, with the first of those.

    Args:
        rows: Numbers of the rows, ascending, shape ``(rows,)``.
        keys: Their keys, uint64, the same shape.
    """
    return shared_rows(rows, keys, rows, keys ^ keys.dtype.type(1))


def near_rows(
    spool: Spool,
    rows: NDArray[Any],
    threshold: float,
    pieces_of: Callable[[SpooledRow], set[str]],
    others: NDArray[Any] | None = None,
) -> Pairs:
    """Each row that is near one of the others, or without others to an earlier row, with that one.

    Some 1.3 KB of memory for each row that is compared with.

    Args:
        spool: Holds the rows.
        rows: Their numbers, ascending.
        threshold: Similarity (Jaccard of their pieces, estimated), from 0 to 1.
        pieces_of: What is compared of a row, as of ``pieces``.
        others: Numbers of the rows to compare with.
    """
    import numpy
    from rensa import RMinHashDeduplicator

    known = RMinHashDeduplicator(threshold=threshold, num_perm=_PERMUTATIONS, use_lsh=True)
    if others is not None:
        for index, sketch in _sketches(spool, others, pieces_of):
            known.add(str(index), sketch)
    near: dict[int, int] = {}
    for index, sketch in _sketches(spool, rows, pieces_of):
        found = known.get_duplicates(sketch)
        if found:
            near[index] = min(map(int, found))
        elif others is None:
            known.add(str(index), sketch)
    return Pairs(numpy.array(list(near), dtype=int), numpy.array(list(near.values()), dtype=int))


def describe(spool: Spool, equal: Pairs, near: Pairs, *, dropped: bool, sign: str = "=") -> Repeats:
    """Count repeated rows and name the first of them on both sides.

    Args:
        spool: Holds the rows.
        equal: Those that are exactly so.
        near: Those that are nearly so.
        dropped: Whether they are left out.
        sign: Stands between the two sides.
    """
    named = [
        (int(row), int(other), between)
        for pairs, between in ((equal, sign), (near, "~"))
        for row, other in zip(pairs.rows[:_SHOWN], pairs.others[:_SHOWN], strict=True)
    ][:_SHOWN]
    origins = spool.origins([index for row, other, _ in named for index in (row, other)])
    return Repeats(
        equal=len(equal.rows),
        near=len(near.rows),
        dropped=dropped,
        first=[f"{origins[row]} {between} {origins[other]}" for row, other, between in named],
    )


def _members(keys: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Places of the keys that are among the values, which ascend; a part of them at a time."""
    import numpy

    if not len(values):
        return numpy.zeros(0, dtype=int)
    found = []
    for start in range(0, len(keys), _CHUNK):
        part = keys[start : start + _CHUNK]
        near = values.searchsorted(part).clip(max=len(values) - 1)
        found.append(numpy.flatnonzero(values[near] == part) + start)
    return numpy.concatenate([numpy.zeros(0, dtype=int), *found])


def _ascending(rows: NDArray[Any], others: NDArray[Any]) -> Pairs:
    order = rows.argsort()
    return Pairs(rows[order], others[order])


def _plain(conversation: Sequence[Message]) -> str:
    return " ".join("\n".join(message["content"] for message in conversation).casefold().split())


def _sketches(
    spool: Spool, rows: NDArray[Any], pieces_of: Callable[[SpooledRow], set[str]]
) -> Iterator[tuple[int, object]]:
    from rensa import RMinHash

    for batch in spool.read(rows):
        sets = [list(pieces_of(row)) for row in batch]
        sketches = RMinHash.from_token_sets(sets, num_perm=_PERMUTATIONS, seed=_SEED)
        yield from zip((row.index for row in batch), sketches, strict=True)
