"""Rows that repeat others: equal ones by a hash of their text, near ones by MinHash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.conversation import Message

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_engineering.data.spool import Spool

_SHINGLE = 5  # characters
_PERMUTATIONS, _SEED = 128, 42  # the seed is the index's own; standard error up to 0.05
_SHOWN = 20

Pairs = dict[int, int]
"""A row -> the row that it repeats, by their numbers."""


class Repeats(BaseModel):
    """Rows that repeat others: how many, and what was done about them."""

    equal: int = Field(0, description="Rows that are equal to another.")
    near: int = Field(0, description="Rows that are near to another, and not equal.")
    dropped: bool = Field(False, description="They were left out of training.")
    first: list[str] = Field([], description="The first of them: file:line = file:line.")

    @property
    def count(self) -> int:
        """Equal and near ones."""
        return self.equal + self.near


def text_key(conversation: Sequence[Message]) -> int:
    """A hash of 64 bits of what is said, whatever its case, its spaces and its form.

    Of ten million rows, two different ones share it in one of 370,000 data sets.
    """
    return int.from_bytes(hashlib.blake2b(_plain(conversation).encode(), digest_size=8).digest())


def equal_rows(rows: NDArray[Any], keys: NDArray[Any]) -> Pairs:
    """Each row whose key an earlier one has, with the first that has it.

    Args:
        rows: Numbers of the rows, ascending, shape ``(rows,)``.
        keys: Their keys, the same shape.
    """
    import numpy

    order = numpy.argsort(keys, kind="stable")
    same = numpy.flatnonzero(keys[order][1:] == keys[order][:-1]) + 1
    pairs: Pairs = {}
    for place in same.tolist():
        before, here = int(rows[order[place - 1]]), int(rows[order[place]])
        pairs[here] = pairs.get(before, before)
    return dict(sorted(pairs.items()))


def shared_rows(
    rows: NDArray[Any], keys: NDArray[Any], others: NDArray[Any], other_keys: NDArray[Any]
) -> Pairs:
    """Each row whose key one of the others has, with the first of those."""
    import numpy

    first: Pairs = {}
    for key, other in zip(other_keys.tolist(), others.tolist(), strict=True):
        first.setdefault(key, other)
    found = numpy.flatnonzero(numpy.isin(keys, other_keys))
    return {int(rows[place]): first[int(keys[place])] for place in found}


def near_rows(
    spool: Spool, rows: NDArray[Any], threshold: float, others: NDArray[Any] | None = None
) -> Pairs:
    """Each row that is near one of the others, or without others to an earlier row, with that one.

    About 2 KB of memory for each row that is compared with.

    Args:
        spool: Holds the rows.
        rows: Their numbers, ascending.
        threshold: Similarity (Jaccard of their five-character pieces, estimated), from 0 to 1.
        others: Numbers of the rows to compare with.
    """
    from rensa import RMinHashDeduplicator

    known = RMinHashDeduplicator(threshold=threshold, num_perm=_PERMUTATIONS, use_lsh=True)
    if others is not None:
        for index, sketch in _sketches(spool, others):
            known.add(str(index), sketch)
    pairs: Pairs = {}
    for index, sketch in _sketches(spool, rows):
        found = known.get_duplicates(sketch)
        if found:
            pairs[index] = min(map(int, found))
        elif others is None:
            known.add(str(index), sketch)
    return pairs


def describe(spool: Spool, equal: Pairs, near: Pairs, *, dropped: bool) -> Repeats:
    """Count repeated rows and name the first of them on both sides."""
    named = [(*pair, "=") for pair in list(equal.items())[:_SHOWN]]
    named += [(*pair, "~") for pair in list(near.items())[: _SHOWN - len(named)]]
    origins = spool.origins([index for row, other, _ in named for index in (row, other)])
    return Repeats(
        equal=len(equal),
        near=len(near),
        dropped=dropped,
        first=[f"{origins[row]} {sign} {origins[other]}" for row, other, sign in named],
    )


def _plain(conversation: Sequence[Message]) -> str:
    return " ".join("\n".join(message["content"] for message in conversation).casefold().split())


def _sketches(spool: Spool, rows: NDArray[Any]) -> Iterator[tuple[int, object]]:
    from rensa import RMinHash

    for batch in spool.read(rows):
        texts = [_plain(json.loads(row.messages)) for row in batch]
        pieces = [
            list({text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1))})
            for text in texts
        ]
        sketches = RMinHash.from_token_sets(pieces, num_perm=_PERMUTATIONS, seed=_SEED)
        yield from zip((row.index for row in batch), sketches, strict=True)
