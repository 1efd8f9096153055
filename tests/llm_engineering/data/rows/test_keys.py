"""What a row is compared by: case and spaces do not count in its text, the order in its answers."""

from __future__ import annotations

import pytest

from llm_engineering.data.rows.keys import answers_key, shingles, split_key, text_key
from llm_engineering.data.rows.message import Message


def said(text: str) -> list[Message]:
    return [Message("user", text), Message("assistant", "Yes.")]


@pytest.mark.parametrize(
    ("text", "same"),
    [("the  QUICK\n fox ", True), ("The quick fox", True), ("The quick foxes", False)],
)
def test_case_and_spaces_do_not_make_another_text(text: str, same: bool) -> None:
    assert (text_key(said("The quick fox")) == text_key(said(text))) is same


def test_a_plain_text_is_the_same_as_its_conversation() -> None:
    text = [Message("text", "The quick fox\nyes.")]

    assert text_key(text) == text_key(said("The quick fox"))


def test_shingles_are_of_five_characters_and_of_less_where_there_is_less() -> None:
    assert shingles([Message("user", "AB  cdef")]) == {"ab cd", "b cde", " cdef"}
    assert shingles([Message("user", "Hi")]) == {"hi"}


def test_keys_are_the_same_on_every_host_and_with_every_release() -> None:
    # What was held out, and what was drawn by weight, must stay so.
    assert split_key(said("Größe?"), seed=0) == 15406118627470237400
    assert text_key(said("Größe?")) == 5005487211605555690
    assert answers_key(said("Größe?"), ["b", "a"]) == 16861753024838918996
    assert answers_key(said("Größe?"), ["a", "b"]) == 16861753024838918996
