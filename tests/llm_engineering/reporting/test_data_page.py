"""The page of the prepared data, which the dashboard shows before anything is trained."""

from __future__ import annotations

import re

from llm_engineering.data.summary import Repeats
from llm_engineering.data.tokens.audit import LabelledPiece
from llm_engineering.reporting.data_page import render_data_page
from llm_engineering.reporting.run_report import RunReport

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


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
    assert "<mark>Hello&lt;|im_end|&gt;</mark>" in html


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


def test_text_of_the_data_never_becomes_markup(run: RunReport) -> None:
    train = run.summary.train.model_copy(
        update={
            "example": [LabelledPiece(text=HOSTILE, trained=True)],
            "example_origin": HOSTILE,
        }
    )
    sources = [run.summary.sources[0].model_copy(update={"source": HOSTILE})]
    html = render_data_page(
        run.summary.model_copy(update={"train": train, "sources": sources, "bad_rows": [HOSTILE]})
    )
    assert not re.search("<script|<img", html)
    assert html.count("&lt;script&gt;") == 4
    assert "{{ 7 * 7 }}" in html
