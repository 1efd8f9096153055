"""Rows that nearly repeat or leak others: MinHash over their shingles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from llm_engineering.data.objective_rows.objective_rows import ObjectiveRows
from llm_engineering.data.select.duplicates import Matches

if TYPE_CHECKING:
    from llm_engineering.data.rows.row_store import RowNumbers, RowStore, StoredRow

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")

_PERMUTATIONS, _SEED = 128, 42  # the seed is the index's own; standard error up to 0.05


def near_duplicates(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    store: RowStore[ItemT],
    rows: RowNumbers,
    threshold: float,
) -> Matches:
    """Each row that nearly repeats an earlier one; arguments as of ``near_rows``.

    Where answers count too, they are compared among rows whose prompts are near the same one.
    """
    found = near_rows(store, rows, threshold, lambda row: objective_rows.leak_shingles(row.item))
    if not objective_rows.judges_answers:
        return found
    prompts = dict(zip(found.rows.tolist(), found.others.tolist(), strict=True))

    def answers(row: StoredRow[ItemT]) -> set[str]:
        prompt = prompts.get(row.number, row.number)
        return {f"{prompt} {shingle}" for shingle in objective_rows.answer_shingles(row.item)}

    return near_rows(store, rows, threshold, answers)


def near_leaks(
    objective_rows: ObjectiveRows[ItemT, TokensT],
    store: RowStore[ItemT],
    rows: RowNumbers,
    threshold: float,
    held_out: RowNumbers,
) -> Matches:
    """Each row that nearly leaks a held-out one; arguments as of ``near_rows``."""
    return near_rows(
        store, rows, threshold, lambda row: objective_rows.leak_shingles(row.item), held_out
    )


def near_rows(
    store: RowStore[ItemT],
    rows: RowNumbers,
    threshold: float,
    shingles_of: Callable[[StoredRow[ItemT]], set[str]],
    others: RowNumbers | None = None,
) -> Matches:
    """Each row that is near one of the others, or without others to an earlier row, with that one.

    Some 1.3 KB of memory for each row that is compared with.

    Args:
        store: Holds the rows.
        rows: Their numbers, ascending.
        threshold: Similarity (Jaccard of their shingles, estimated), from 0 to 1.
        shingles_of: What is compared of a row, as of ``keys.shingles``.
        others: Numbers of the rows to compare with.
    """
    import numpy
    from rensa import RMinHashDeduplicator

    known = RMinHashDeduplicator(threshold=threshold, num_perm=_PERMUTATIONS, use_lsh=True)
    if others is not None:
        for number, sketch in _sketches(store, others, shingles_of):
            known.add(str(number), sketch)
    near: dict[int, int] = {}
    for number, sketch in _sketches(store, rows, shingles_of):
        found = known.get_duplicates(sketch)
        if found:
            near[number] = min(map(int, found))
        elif others is None:
            known.add(str(number), sketch)
    return Matches(numpy.array(list(near), dtype=int), numpy.array(list(near.values()), dtype=int))


def _sketches(
    store: RowStore[ItemT], rows: RowNumbers, shingles_of: Callable[[StoredRow[ItemT]], set[str]]
) -> Iterator[tuple[int, object]]:
    from rensa import RMinHash

    for batch in store.read(rows):
        sets = [list(shingles_of(row)) for row in batch]
        sketches = RMinHash.from_token_sets(sets, num_perm=_PERMUTATIONS, seed=_SEED)
        yield from zip((row.number for row in batch), sketches, strict=True)
