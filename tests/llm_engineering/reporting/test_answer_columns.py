"""A row's answers beside each other."""

from __future__ import annotations

import pytest

from llm_engineering.reporting.answer_columns import ShownAnswers, answer_columns


def test_without_production_there_are_three() -> None:
    columns = answer_columns("R", "It is a.", "It is b.", longest=100)
    assert [one.label for one in columns] == [
        *("Reference", "Before · base model", "After · adapter")
    ]
    assert [one.text for one in columns[1:]] == ["It is <del>a</del>.", "It is <ins>b</ins>."]


def test_words_are_held_against_production_where_it_answered() -> None:
    _, base, production, new = answer_columns(
        "R", "It is a.", "It is b.", longest=100, has_production=True, production="It was b."
    )
    assert production.label == "Production"
    assert base.text == "It is <del>a</del>."
    assert production.text == "It <del>was</del> b."
    assert new.text == "It <ins>is</ins> b."


def test_production_without_an_answer_is_told_from_an_empty_one() -> None:
    def column(production: str | None) -> tuple[str, str]:
        found = answer_columns(
            "R", "a", "b", longest=9, has_production=True, production=production
        )[2]
        return found.text, found.note

    assert column(None) == ("", "(none that was made alike)")
    assert column("") == ("", "")


def test_long_answers_are_cut_and_say_so() -> None:
    reference, base, production, new = answer_columns(
        "**r** " * 10,
        "<" * 20,
        "b" * 30,
        longest=10,
        has_production=True,
        production="c" * 40,
        cuts=(True, False, True),
    )
    assert reference.note == "… (60 characters)"
    assert reference.markdown is not None
    assert reference.markdown.count("<strong>r</strong>") == 1  # and what is left of the second
    assert (base.text, base.note) == ("&lt;" * 10, "… (20 characters) [cut]")
    assert (production.text, production.note) == ("c" * 10, "… (40 characters)")
    assert new.note == "… (30 characters) [cut]"
    assert base.size == 40


@pytest.mark.parametrize(
    ("base", "production", "new", "hidden"),
    [
        ("a", "b", "c", False),
        ("`a`", "b", "c", False),  # the two that are held against each other are text
        ("a", "`b`", "c", True),
        ("a", "b", "`c`", True),
        ("`a`", None, "c", True),
        ("a", None, "c", False),
    ],
)
def test_marks_are_hidden_where_one_of_two_is_rendered(
    base: str, production: str | None, new: str, hidden: bool
) -> None:
    columns = answer_columns(
        "`R`", base, new, longest=9, has_production=True, production=production
    )
    assert ShownAnswers(0, "", columns).hides_marks is hidden
    if production is None:
        alone = answer_columns("`R`", base, new, longest=9)
        assert ShownAnswers(0, "", alone).hides_marks is hidden
