"""The page of the prepared data, which the dashboard shows before anything is trained."""

from __future__ import annotations

import re

from llm_engineering.data.summary import ExampleRow, Repeats
from llm_engineering.data.tokens.audit import LabelledPiece
from llm_engineering.reporting.data_page import render_data_page
from llm_engineering.reporting.run_report import RunReport

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"

READ_OUT = '<span class="hidden">trained: </span>'
READ_END = '<span class="hidden"> (end of what is trained)</span>'


def text(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", html.split("</style>")[1]).split())


def test_it_says_what_is_trained_on(run: RunReport) -> None:
    summary = run.summary.model_copy(update={"bad_rows": ["data/train.jsonl:9: is not JSON"]})
    html = render_data_page(summary)
    shown = text(html)
    assert "data/train.jsonl alpaca 2,620 2,600" in shown  # form, rows read, rows used
    assert "acme/questions – 1,000 –" in shown
    assert "Training 3,620 160,000 96,000 60.0 % 168 7" in shown
    assert "Held-out 64 3,646 2,034 55.8 % 168 7" in shown
    assert "Skipped rows: 1 data/train.jsonl:9: is not JSON" in shown
    assert "162 to 168 tokens: 1" in shown
    assert summary.digest in shown
    assert f"<mark>{READ_OUT}Hello&lt;|im_end|&gt;{READ_END}</mark>" in html


def test_repeated_and_leaked_rows_are_named_on_both_sides(run: RunReport) -> None:
    opposite = Repeats(equal=2, first=["a.jsonl:6 != a.jsonl:5", "a.jsonl:5 != a.jsonl:6"])
    duplicates = Repeats(equal=30, dropped=True, first=["a.jsonl:3 = a.jsonl:1"])
    leaks = Repeats(near=1, first=["a.jsonl:4 ~ b.jsonl:1"])
    shown = text(
        render_data_page(
            run.summary.model_copy(
                update={"contradictions": opposite, "duplicates": duplicates, "leaks": leaks}
            ),
            ["data.held_out: no usable row is left"],
        )
    )
    assert "Contradictory training rows: 2 a.jsonl:6 != a.jsonl:5 a.jsonl:5 != a.jsonl:6" in shown
    assert "Repeated training rows, left out: 30 a.jsonl:3 = a.jsonl:1 The first 1 of 30." in shown
    assert "Training rows that leak held-out ones: 1 a.jsonl:4 ~ b.jsonl:1" in shown
    assert "No row was skipped." in shown
    assert "A run would refuse this data data.held_out: no usable row is left" in shown


def test_nothing_found_is_said(run: RunReport) -> None:
    assert "No row was skipped, is repeated or leaks a held-out one." in text(
        render_data_page(run.summary)
    )


def test_what_was_not_looked_for_is_not_called_absent(run: RunReport) -> None:
    summary = run.summary.model_copy(update={"duplicates": None, "leaks": None})
    assert "No row was skipped. One" in text(render_data_page(summary))


def test_what_is_trained_is_told_by_more_than_a_colour(run: RunReport) -> None:
    html = render_data_page(run.summary)
    (mark,) = re.findall(r"\nmark \{(.*?)\}", html, re.DOTALL)
    assert "text-decoration: underline" in mark
    assert html.count("<mark>") == html.count(READ_OUT) + 1  # the legend's own
    assert html.count(READ_OUT) == html.count(READ_END) == 1


def test_the_page_has_a_heading_and_its_tables_have_scopes(run: RunReport) -> None:
    html = render_data_page(run.summary)
    assert html.count("<h1") == 1
    assert len(re.findall(r"<th\b", html)) == len(re.findall(r'<th scope="(?:col|row)"', html)) > 10


def test_each_source_shows_a_row_and_the_one_that_was_cut_is_named(run: RunReport) -> None:
    rows = [
        ExampleRow(
            origin=f"{name}.jsonl:1", cut=cut, pieces=[LabelledPiece(text=name, trained=True)]
        )
        for name, cut in (("one", False), ("two", False), ("three", True))
    ]
    shown = text(render_data_page(run.summary.model_copy(update={"examples": rows})))
    assert "Training rows as the model sees them" in shown
    for name in ("one", "two"):
        assert f"{name}.jsonl:1 trained: {name} (end of what is trained)" in shown
    assert "three.jsonl:1 cut at model.max_seq_length trained: three" in shown
    assert "data/train.jsonl:1" not in shown  # each source has one, the split's first is among them
    assert "One training row as the model sees it" in text(render_data_page(run.summary))


def test_what_is_not_read_and_not_used_is_said(run: RunReport) -> None:
    read = run.summary.sources[0].model_copy(update={"unread": {"column meta": 2620, "x": 1}})
    shown = text(
        render_data_page(
            run.summary.model_copy(
                update={
                    "sources": [read, *run.summary.sources[1:]],
                    "held_out_unused": 200,
                    "notices": ["an empty thought is trained"],
                }
            )
        )
    )
    assert "Not read of data/train.jsonl column meta in 2,620 rows x in 1 row" in shown
    assert "200 held-out rows are not used, neither trained nor evaluated on" in shown
    assert "data.held_out.max_rows is 64" in shown
    assert "an empty thought is trained" in shown
    whole = text(render_data_page(run.summary))
    assert "Not read" not in whole
    assert "To know" not in whole


def test_text_of_the_data_never_becomes_markup(run: RunReport) -> None:
    train = run.summary.train.model_copy(
        update={
            "example": [LabelledPiece(text=HOSTILE, trained=True)],
            "example_origin": HOSTILE,
        }
    )
    unread = {"source": HOSTILE, "unread": {HOSTILE: 1}}
    sources = [run.summary.sources[0].model_copy(update=unread)]
    html = render_data_page(
        run.summary.model_copy(
            update={
                "train": train,
                "sources": sources,
                "bad_rows": [HOSTILE],
                "notices": [HOSTILE],
            }
        )
    )
    assert not re.search("<script|<img", html)
    assert html.count("&lt;script&gt;") == 7
    assert "{{ 7 * 7 }}" in html
