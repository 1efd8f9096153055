"""Rows that are nearly the same: how many of them are found, and that no others are."""

from __future__ import annotations

import json
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
from llm_engineering.data.select.near import near_duplicates, near_leaks, near_rows
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


def test_a_pair_that_just_reaches_the_threshold_is_near(stored: Stored) -> None:
    letters = [chr(0x4E00 + number) for number in range(48)]
    text = "".join(letters[:34])  # 30 shingles of five letters, no two alike
    other = text[:24] + "".join(letters[34:44])  # 20 of them, and ten others
    assert alike(text, other) == 0.5

    assert near(stored([text, other]), 0.5) == {1: 0}


def test_rows_are_found_anywhere_in_a_batch_that_is_compared_in_parts(stored: Stored) -> None:
    choose = random.Random(3)
    texts = ["".join(choose.choices(LETTERS, k=80)) for _ in range(400)]
    for number, other in ((1, 0), (128, 127), (131, 130), (299, 2), (300, 200), (399, 398)):
        texts[number] = texts[other] + "!"

    assert near(stored(texts), 0.8) == {1: 0, 128: 127, 131: 130, 299: 2, 300: 200, 399: 398}


def test_no_match_is_none_of_whole_numbers(stored: Stored) -> None:
    found = near_rows(stored([TEXT, "else"]), numpy.arange(2), 0.9, whole, Workers(1))

    assert pairs(found) == {}
    assert found.rows.dtype == found.others.dtype == int


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


Items = Callable[[list[dict[str, str]]], RowStore[Preference]]
PREFERENCES = PreferenceRows("dpo")
ANSWERS = ["A fox is an animal of the woods.", "It is a kind of instrument with strings."]


@pytest.fixture
def preferences(tmp_path: Path) -> Items:
    """Store preferences."""

    def store(given: list[dict[str, str]]) -> RowStore[Preference]:
        items = [PREFERENCES.read(one, None, set())[0] for one in given]
        made: RowStore[Preference] = RowStore(tmp_path / "rows.arrow", PREFERENCES.from_json)
        lines = [json.dumps(PREFERENCES.to_json(item)) for item in items]
        made.add(to_stored(["a"] * len(items), lines))
        made.close()
        return made

    return store


def test_answers_count_where_they_are_judged(preferences: Items) -> None:
    shorter = TEXT.replace("quick", "quack")
    store = preferences(
        [
            {"prompt": TEXT, "chosen": ANSWERS[0], "rejected": ANSWERS[1]},
            {"prompt": shorter, "chosen": ANSWERS[0] + "!", "rejected": ANSWERS[1]},
            {"prompt": shorter, "chosen": ANSWERS[1], "rejected": ANSWERS[0]},
            {"prompt": "Something else?", "chosen": ANSWERS[0], "rejected": ANSWERS[1]},
        ]
    )

    found = near_duplicates(PREFERENCES, store, numpy.arange(4), 0.7, Workers(1))

    # The third prefers the other answer, the fourth answers another prompt.
    assert pairs(found) == {1: 0}


def test_a_prompt_that_is_near_a_held_out_one_leaks_whatever_its_answers(
    preferences: Items,
) -> None:
    store = preferences(
        [
            {"prompt": "Something else?", "chosen": ANSWERS[0], "rejected": ANSWERS[1]},
            {"prompt": TEXT + "!", "chosen": "Yes.", "rejected": "No."},
            {"prompt": TEXT + "?", "chosen": "Maybe.", "rejected": "Never."},
            {"prompt": "Is it new?", "chosen": ANSWERS[0], "rejected": ANSWERS[1]},
            {"prompt": TEXT, "chosen": ANSWERS[0], "rejected": ANSWERS[1]},
        ]
    )
    training, held_out = numpy.array([0, 1, 2]), numpy.array([3, 4])

    found = near_leaks(PREFERENCES, store, training, 0.7, Workers(1), held_out)

    assert pairs(found) == {1: 4, 2: 4}
