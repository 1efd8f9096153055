"""Shingles: every five characters of each text, and none across two of them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from llm_engineering.data.rows.shingles import Piece, shingle, shingle_set, similarity


def pieces(*texts: str) -> list[Piece]:
    return [Piece(text) for text in texts]


def of(text: str) -> Any:
    return shingle_set(pieces(text))


def sets(*rows: list[Piece]) -> list[set[int]]:
    hashes, offsets = shingle(rows)
    return [
        set(hashes[start:end].tolist())
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]


def test_every_five_characters_are_one() -> None:
    row, first, second, third = sets(
        pieces("ab cdef"), pieces("ab cd"), pieces("b cde"), pieces(" cdef")
    )

    assert row == first | second | third
    assert len(row) == 3


def test_no_shingle_goes_from_one_text_to_the_next() -> None:
    apart, together, first, second = sets(
        pieces("abcde", "vwxyz"), pieces("abcdevwxyz"), pieces("abcde"), pieces("vwxyz")
    )

    assert apart == first | second
    assert len(together) == 6


@pytest.mark.parametrize("text", ["", "a", "日本", "abcd"])
def test_a_shorter_text_is_one_itself(text: str) -> None:
    short, same, longer = sets(pieces(text), pieces(text), pieces(f"{text}x"))

    assert len(short) == 1
    assert short == same != longer


def test_kinds_keep_equal_texts_apart() -> None:
    first, second = sets([Piece("abcdefgh", 1)], [Piece("abcdefgh", 2)])

    assert len(first) == len(second) == 4
    assert not first & second


def test_different_shingles_have_different_hashes() -> None:
    choose = random.Random(0)
    texts = {"".join(choose.choices("abcdefghijklmnop 日", k=5)) for _ in range(50_000)}

    hashes, _ = shingle([pieces(*sorted(texts))])

    assert len(set(hashes.tolist())) == len(texts)


def test_similarity_is_that_of_the_sets() -> None:
    assert similarity(of("abcdefgh"), of("abcdefgx")) == pytest.approx(3 / 5)
    assert similarity(of("aaaaaaaaa"), of("aaaaa")) == 1.0
    assert similarity(of("abcde"), of("vwxyz")) == 0.0
