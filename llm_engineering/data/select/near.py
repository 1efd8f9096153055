"""Rows that nearly repeat or leak others: found by MinHash, told by their shingles themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from llm_engineering.data.objective_rows.objective_rows import ObjectiveRows
from llm_engineering.data.rows.row_store import StoredBatch, StoredRow
from llm_engineering.data.rows.shingles import Piece, shingle, shingle_set, similarity
from llm_engineering.data.select.bands import (
    BandIndex,
    Banding,
    Signatures,
    choose_banding,
    to_signatures,
)
from llm_engineering.data.select.duplicates import Matches
from llm_engineering.data.workers import Workers

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from llm_engineering.data.rows.row_store import RowNumbers, RowStore
    from llm_engineering.data.rows.shingles import Shingles

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")

_SEED = 42  # of the permutations
_TOGETHER = 128  # rows that are compared at once; of equal ones, each with each
_KEPT = 16  # rows whose shingles stay in memory while others are compared with them


def near_duplicates(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    store: RowStore[ItemT],
    rows: RowNumbers,
    threshold: float,
    workers: Workers,
) -> Matches:
    """Each row that nearly repeats an earlier one; arguments as of ``near_rows``.

    Where answers count too, they are compared among rows whose prompts are near the same one.
    """
    found = near_rows(store, rows, threshold, objective_rows.said, workers)
    if not objective_rows.judges_answers:
        return found
    prompts = rows.copy()
    prompts[rows.searchsorted(found.rows)] = found.others
    return near_rows(store, rows, threshold, objective_rows.answers_said, workers, groups=prompts)


def near_leaks(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    store: RowStore[ItemT],
    rows: RowNumbers,
    threshold: float,
    workers: Workers,
    held_out: RowNumbers,
) -> Matches:
    """Each row that nearly leaks a held-out one; arguments as of ``near_rows``."""
    return near_rows(store, rows, threshold, objective_rows.asked, workers, others=held_out)


def near_rows(
    store: RowStore[ItemT],
    rows: RowNumbers,
    threshold: float,
    pieces_of: Callable[[ItemT], Sequence[Piece]],
    workers: Workers,
    *,
    others: RowNumbers | None = None,
    groups: RowNumbers | None = None,
) -> Matches:
    """Each row that is near one of the others, or without others an earlier row, with that one.

    Pairs are found by MinHash, 95 % of those at the threshold and more above, and then told by
    the similarity of their shingles: each that is named reaches the threshold. A row that is near
    an earlier one stands for no other. Memory for each row that is compared with: as ``BandIndex``.

    Args:
        store: Holds the rows.
        rows: Their numbers, ascending.
        threshold: Similarity (Jaccard of their shingles), from 0.5 to 1.
        pieces_of: The texts of a row that are compared.
        workers: Who hashes them.
        others: Numbers of the rows to compare with.
        groups: A number for each row; only rows that share it are near one another.
    """
    import numpy

    banding = choose_banding(threshold)
    sign = _Sign(pieces_of, store.from_json, banding)
    known = BandIndex(banding, threshold)
    if others is not None:
        for numbers, signatures in _signed(store, others, None, sign, workers):
            known.add(numbers, signatures)

    @lru_cache(maxsize=_KEPT)
    def shingles(number: int) -> Shingles:
        group = 0 if groups is None else int(groups[rows.searchsorted(number)])
        return shingle_set(_in_group(pieces_of(store.row(number).item), group))

    near: dict[int, int] = {}

    def compare(index: BandIndex, numbers: RowNumbers, signatures: Signatures) -> NDArray[Any]:
        """Tell which of the rows are near those of the index; returns a mask of the others."""
        positions, candidates = index.near(signatures)
        for number, other in zip(numbers[positions].tolist(), candidates.tolist(), strict=True):
            if number in near or other in near or (others is None and other >= number):
                continue
            if similarity(shingles(number), shingles(other)) >= threshold:
                near[number] = other
        return numpy.array([number not in near for number in numbers.tolist()], dtype=bool)

    for numbers, signatures in _signed(store, rows, groups, sign, workers):
        for start in range(0, len(numbers), _TOGETHER):
            some = numbers[start : start + _TOGETHER]
            signed = signatures.part(slice(start, start + _TOGETHER))
            left = compare(known, some, signed)
            if others is None:  # they may be near one another
                some, signed = some[left], signed.part(left)
                among = BandIndex(banding, threshold)
                among.add(some, signed)
                left = compare(among, some, signed)
                known.add(some[left], signed.part(left))
    found = numpy.array(sorted(near), dtype=int)
    return Matches(found, numpy.array([near[number] for number in found.tolist()], dtype=int))


class _Batch(NamedTuple):
    stored: StoredBatch
    groups: NDArray[numpy.intp] | None


@dataclass(frozen=True)
class _Sign(Generic[ItemT]):
    """Gives the MinHash signatures of a batch of stored rows; runs in a worker."""

    pieces_of: Callable[[ItemT], Sequence[Piece]]
    from_json: Callable[[Any], ItemT]
    banding: Banding

    def __call__(self, batch: _Batch) -> Signatures:
        import numpy
        from rensa import RMinHash

        rows: list[StoredRow[ItemT]] = batch.stored.rows(self.from_json)
        groups = [0] * len(rows) if batch.groups is None else batch.groups.tolist()
        hashes, offsets = shingle(
            [
                _in_group(self.pieces_of(row.item), group)
                for row, group in zip(rows, groups, strict=True)
            ]
        )
        count = self.banding.permutations
        values = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, count, _SEED)
        return to_signatures(numpy.array(values.to_rows(), dtype="uint32"), self.banding)


def _signed(
    store: RowStore[ItemT],
    rows: RowNumbers,
    groups: RowNumbers | None,
    sign: _Sign[ItemT],
    workers: Workers,
) -> Iterator[tuple[RowNumbers, Signatures]]:
    """Numbers and signatures of the rows, batch by batch."""

    def batches() -> Iterator[_Batch]:
        for stored in store.batches(rows):
            at = rows.searchsorted(stored.numbers)
            yield _Batch(stored, None if groups is None else groups[at])

    done = workers.map(sign, batches(), rows=len(rows), size=store.size_of(rows))
    for batch, signatures in done:
        yield batch.stored.numbers, signatures


def _in_group(pieces: Sequence[Piece], group: int) -> Sequence[Piece]:
    """The texts, kept apart from those of other groups; kinds are below 256."""
    return pieces if not group else [Piece(text, kind ^ group << 8) for text, kind in pieces]
