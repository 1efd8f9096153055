"""Tests of ``llm_engineering.scoring.user_function``: found, called, and named when it is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_engineering.errors import ConfigError, ScoringError
from llm_engineering.scoring.user_function import call, load_function, source_digest

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module into the current folder; gives ``module:score``."""
    monkeypatch.chdir(tmp_path)

    def go(source: str) -> str:
        (tmp_path / "scores_of_a_test.py").write_text(source)
        sys.modules.pop("scores_of_a_test", None)
        return "scores_of_a_test:score"

    yield go
    sys.modules.pop("scores_of_a_test", None)


def test_it_is_found_in_the_current_folder_and_called_by_names(write: Write) -> None:
    named = write("def score(prompt, answer, reference): return answer == reference + prompt")
    path = list(sys.path)
    function = load_function(named, "key")
    assert sys.path == path
    assert call(function, named, "a:1", answer="ba", reference="b", prompt="a") == 1.0
    assert call(function, named, "a:1", answer="b", reference="b", prompt="a") == 0.0


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("def other(): ...", "cannot be imported from .*AttributeError"),
        ("import no_such_package", "cannot be imported .*No module named 'no_such_package'"),
        ("raise SystemExit(3)", "cannot be imported"),
        ("def score(answer): ...", "cannot be called with answer, reference, prompt"),
        ("def score(answer, reference, prompt, more): ...", "missing a required argument: 'more'"),
        ("score = 3", "cannot be called"),
    ],
)
def test_one_that_cannot_be_used_is_refused_before_anything_is_read(
    write: Write, source: str, wrong: str
) -> None:
    with pytest.raises(ConfigError, match=f"^evaluate.key: scores_of_a_test:score .*{wrong}"):
        load_function(write(source), "evaluate.key")


def test_an_exception_names_row_and_line(write: Write) -> None:
    named = write("def score(*, answer, **others):\n    return len(answer) / 0\n")
    function = load_function(named, "key")
    with pytest.raises(ScoringError) as raised:
        call(function, named, "held_out.jsonl:7", answer="an answer", reference="", prompt="")
    message = str(raised.value)
    assert "scores_of_a_test:score raised ZeroDivisionError" in message
    assert "scores_of_a_test.py:2" in message
    assert "'an answer' to held_out.jsonl:7" in message


@pytest.mark.parametrize("value", ["None", "'high'", "float('nan')", "[1]"])
def test_what_is_no_number_is_refused(write: Write, value: str) -> None:
    named = write(f"def score(**texts): return {value}")
    function = load_function(named, "key")
    with pytest.raises(ScoringError, match=r"gave .* to held_out.jsonl:7, expected a finite"):
        call(function, named, "held_out.jsonl:7", answer="", reference="", prompt="")


def test_another_source_has_another_digest(write: Write) -> None:
    first = source_digest(load_function(write("def score(**texts): return 1"), "key"))
    again = source_digest(load_function(write("def score(**texts): return 1"), "key"))
    other = source_digest(load_function(write("def score(**texts): return 2"), "key"))
    assert first == again != other
