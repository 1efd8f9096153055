"""Tests of ``--ask`` and ``--ask-file``: one answer printed, or a whole file of them, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.commands import ask
from llm_engineering.configuration import to_yaml
from llm_engineering.errors import DataError, TalkError


@pytest.fixture
def config_path(make_run: Any, make_config: Any, tmp_path: Path) -> Path:
    """The configuration of a finished run."""
    make_run()
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(make_config()))
    return path


def test_a_file_is_answered_as_its_questions_are_one_by_one(
    config_path: Path, tmp_path: Path, write_jsonl: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "What is a list?"}, {"prompt": "Why?", "completion": "Because."}]
    questions, answers = write_jsonl(tmp_path / "q.jsonl", rows), tmp_path / "a.jsonl"

    ask.ask_file(questions, answers, "", config_path, [])
    capsys.readouterr()
    ask.ask("What is a list?", "one", config_path, [])

    found = [json.loads(line) for line in answers.read_text().splitlines()]
    printed = capsys.readouterr()
    assert printed.out.strip() == found[0]["answer"]
    assert "adapter of one" in printed.err  # the answer alone goes to a pipe
    assert [one["origin"] for one in found] == [f"{questions}:1", f"{questions}:2"]
    assert found[1]["reference"] == "Because."
    assert found[0]["model"] == "one"
    assert found[0]["sampling"]["temperature"] == 0
    assert not answers.with_name("a.jsonl.part").exists()


def test_a_question_that_cannot_be_asked_leaves_no_file(
    config_path: Path, tmp_path: Path, write_jsonl: Any
) -> None:
    questions = write_jsonl(tmp_path / "q.jsonl", [{"question": "list " * 600}])
    with pytest.raises(TalkError, match=r"q.jsonl:1: the conversation has \d+ tokens"):
        ask.ask_file(questions, tmp_path / "a.jsonl", "", config_path, [])
    assert [path.name for path in tmp_path.glob("a.jsonl*")] == []


def test_a_model_that_cannot_be_loaded_leaves_no_file(
    config_path: Path, tmp_path: Path, write_jsonl: Any
) -> None:
    questions = write_jsonl(tmp_path / "q.jsonl", [{"question": "Why?"}])
    with pytest.raises(TalkError, match="neither a folder nor a run"):
        ask.ask_file(questions, tmp_path / "a.jsonl", "none-such", config_path, [])
    assert [path.name for path in tmp_path.glob("a.jsonl*")] == []


def test_answers_that_cannot_be_written_are_told_before_the_model_is_loaded(
    config_path: Path, tmp_path: Path, write_jsonl: Any
) -> None:
    questions = write_jsonl(tmp_path / "q.jsonl", [{"question": "Why?"}])
    with pytest.raises(DataError, match=r"--answers .*No such file"):
        ask.ask_file(questions, tmp_path / "nowhere" / "a.jsonl", "", config_path, [])
