"""Which words are marked of two answers."""

from __future__ import annotations

import pytest
from markupsafe import Markup

from llm_engineering.reporting.word_differences import word_differences


def test_words_of_one_answer_alone_are_marked() -> None:
    old, new = word_differences("the cat sat on a mat", "the dog sat on a mat, asleep")
    assert old == "the <del>cat</del> sat on a mat"
    assert new == "the <ins>dog</ins> sat on a mat<ins>, asleep</ins>"


@pytest.mark.parametrize(
    ("old", "new"),
    [("same <b>", "same <b>"), ("entirely one", "other words here"), ("", "new <i>")],
)
def test_nothing_is_marked_where_marks_say_nothing(old: str, new: str) -> None:
    marked = word_differences(old, new)
    assert not any("<ins>" in one or "<del>" in one for one in marked)
    assert [Markup(one).unescape() for one in marked] == [old, new]


def test_long_texts_are_not_compared() -> None:
    assert "<ins>" not in word_differences("a " * 3000, "a " * 3000 + "b")[1]
