"""The contents list is made of the headings that are there."""

from __future__ import annotations

from llm_engineering.reporting.contents import with_contents

QUESTION = '<h2 class="question">{}</h2>'


def test_headings_get_ids_and_a_list_of_links() -> None:
    page = with_contents(QUESTION.format("Better?") + "<h2>A &amp; b</h2>x<h2>A b</h2>")
    assert '<h2 class="question" id="better">Better?</h2>' in page
    assert '<h2 id="a-b">A &amp; b</h2>x<h2 id="a-b--2">A b</h2>' in page
    assert (
        '<li><a href="#better">Better?</a><ul><li><a href="#a-b">A &amp; b</a></li>'
        '<li><a href="#a-b--2">A b</a></li></ul></li>' in page
    )


def test_a_group_without_a_section_goes() -> None:
    page = with_contents(QUESTION.format("One?") + "\n" + QUESTION.format("Two?") + "<h2>x</h2>")
    assert "One?" not in page
    assert "Two?" in page
    assert "<ul></ul>" not in page


def test_without_groups_all_sections_are_of_one_level() -> None:
    page = with_contents("<h2>a</h2><h2>b</h2>")
    assert '<ul><li><a href="#a">a</a></li><li><a href="#b">b</a></li></ul></nav>' in page


def test_a_page_without_headings_has_no_list() -> None:
    assert with_contents("<p>text</p>") == "<p>text</p>"
