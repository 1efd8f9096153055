"""Rows that are nearly the same: how many of them are found, and that no others are."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from llm_engineering.data.objective_rows.preference_rows import PreferenceRows
from llm_engineering.data.rows.preferences import Preference
from llm_engineering.data.rows.row_store import RowStore, to_stored
from llm_engineering.data.rows.shingles import Piece, shingle_set, similarity
from llm_engineering.data.select.duplicates import Matches
from llm_engineering.data.select.near import near_duplicates, near_rows
from llm_engineering.data.workers import Workers

Stored = Callable[..., RowStore[str]]
TEXT = "the quick brown fox jumps over the lazy dog and runs away through the old dark forest"
LETTERS = "abcdefghijklmnopqrstuvwxyz "
PAIRS = 400


def pairs(found: Matches) -> dict[int, int]:
    return dict(zip(found.rows.tolist(), found.others.tolist(), strict=True))


def whole(text: str) -> list[Piece]:
    return [Piece(text)]


def alike(one: str, other: str) -> float:
    return similarity(shingle_set(whole(one)), shingle_set(whole(other)))


def beginning(text: str) -> list[Piece]:
    return [Piece(text[:5])]


def near(store: RowStore[str], threshold: float, **options: numpy.ndarray) -> dict[int, int]:
    rows = options.pop("rows", numpy.arange(store.rows))
    return pairs(near_rows(store, rows, threshold, whole, Workers(1), **options))


def made_pairs(wanted: float, seed: int) -> list[tuple[str, str]]:
    """Pairs of random texts of 240 characters with a similarity of ``wanted``, by 0.01.

    The second shares the first's beginning: of n shingles each, s shared are s / (2n - s) of all.
    """
    choose = random.Random(seed)
    length, shingles = 240, 236
    found = []
    while len(found) < PAIRS:
        text = "".join(choose.choices(LETTERS, k=length))
        shared = round(2 * shingles * wanted / (1 + wanted)) + 4
        other = text[:shared] + "".join(choose.choices(LETTERS, k=length - shared))
        if abs(alike(text, other) - wanted) < 0.01:
            found.append((text, other))
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.94])
def test_recall_and_precision_are_those_that_are_promised(threshold: float, stored: Stored) -> None:
    for above, least in ((0.05, 0.95), (0.012, 0.8)):
        texts = [text for pair in made_pairs(threshold + above, 1) for text in pair]
        found = near(stored(texts, batch=64), threshold)
        assert set(found.items()) <= {(n, n - 1) for n in range(1, 2 * PAIRS, 2)}
        assert len(found) >= least * PAIRS
    texts = [text for pair in made_pairs(threshold - 0.012, 2) for text in pair]
    assert near(stored(texts, batch=64), threshold) == {}  # found by MinHash, told apart by sets


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_near_rows_are_found_in_any_batch(batch: int, stored: Stored) -> None:
    texts = [TEXT, "something else entirely, on another matter", TEXT.replace("quick", "quack")]
    store, every = stored([*texts, TEXT[:30]], batch), numpy.arange(4)

    assert near(store, 0.7) == {2: 0}
    assert near(store, 0.98) == {}
    assert near(store, 0.7, rows=every[:2], others=every[2:]) == {0: 2}
    assert pairs(near_rows(store, every, 0.98, beginning, Workers(1))) == {2: 0, 3: 0}


def test_a_row_may_be_near_any_of_the_others(stored: Stored) -> None:
    others = [f"{number} {TEXT[::-1]} {number}" * 2 for number in range(3)]
    others = ["".join(random.Random(n).sample(text, len(text))) for n, text in enumerate(others)]
    store = stored([*others, others[2] + "!", others[0] + "?"])

    assert near(store, 0.8, rows=numpy.array([3, 4]), others=numpy.arange(3)) == {3: 2, 4: 0}


def test_a_row_that_is_near_another_stands_for_none(stored: Stored) -> None:
    drift = [TEXT, TEXT[4:] + " and 1", TEXT[8:] + " and 1 and 2"]
    assert alike(drift[0], drift[1]) > 0.85
    assert alike(drift[1], drift[2]) > 0.85
    assert alike(drift[0], drift[2]) < 0.85

    for batch in (1, 1000):
        assert near(stored(drift, batch), 0.85) == {1: 0}


def test_rows_of_different_groups_are_not_near(stored: Stored) -> None:
    store = stored([TEXT] * 4)

    assert near(store, 0.9, groups=numpy.array([0, 7, 7, 0])) == {2: 1, 3: 0}


def test_answers_count_where_they_are_judged(tmp_path: Path) -> None:
    import json

    rows = PreferenceRows("dpo")
    answers = ["A fox is an animal of the woods.", "It is a kind of instrument with strings."]
    shorter = TEXT.replace("quick", "quack")
    given = [
        {"prompt": TEXT, "chosen": answers[0], "rejected": answers[1]},
        {"prompt": shorter, "chosen": answers[0] + "!", "rejected": answers[1]},
        {"prompt": shorter, "chosen": answers[1], "rejected": answers[0]},
    ]
    items = [rows.read(one, None, set())[0] for one in given]
    store: RowStore[Preference] = RowStore(tmp_path / "rows.arrow", rows.from_json)
    store.add(to_stored(["a"] * 3, [json.dumps(rows.to_json(item)) for item in items]))
    store.close()

    found = near_duplicates(rows, store, numpy.arange(3), 0.7, Workers(1))

    assert pairs(found) == {1: 0}  # the third prefers the other answer
