"""The scripts of a page: its policy allows these and no other."""

from __future__ import annotations

import base64
import hashlib
import re

from llm_engineering.reporting.scripts import page_scripts


def test_each_script_is_allowed_by_its_digest() -> None:
    found = page_scripts(zooms=True, answers=True)
    assert len(found["scripts"]) == 3
    assert found["script_hashes"] == [
        f"sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}"
        for one in found["scripts"]
    ]


def test_a_page_carries_what_it_needs_alone() -> None:
    assert page_scripts() == {"scripts": [], "script_hashes": [], "script_styles": ""}
    (answers,) = page_scripts(answers=True)["scripts"]
    assert "answers-filter" in answers


def test_uplot_comes_with_its_licence_and_without_an_address() -> None:
    found = page_scripts(zooms=True)
    library = found["scripts"][0]
    assert "Copyright (c) 2022 Leon Sorokin" in library
    assert "The above copyright notice and this permission notice shall be included" in library
    assert "var uPlot=function()" in library
    for text in (*found["scripts"], found["script_styles"]):
        assert not re.search(r"https?:|url\(|@import|</", text)
    assert sum(map(len, found["scripts"])) + len(found["script_styles"]) < 64_000
