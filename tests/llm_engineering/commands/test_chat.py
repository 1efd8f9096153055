"""Tests of ``--chat``: what a user types, and what comes back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from llm_engineering.commands import chat
from llm_engineering.configuration import to_yaml
from llm_engineering.talk.answering_model import Answer, load_answering_model
from llm_engineering.talk.finished_run import find_run
from llm_engineering.talk.sampling import Sampling


@pytest.fixture
def talk(make_run: Any, make_config: Any) -> chat.Chat:
    """A conversation with a random adapter's model, whose answers are short."""
    make_run()
    model = load_answering_model(find_run("", make_config()))
    console = Console(file=io.StringIO(), width=100)
    return chat.Chat(model, Sampling(max_new_tokens=32), console)


def printed(talk: chat.Chat) -> str:
    """What came back since the last call."""
    file: Any = talk.console.file
    text = file.getvalue()
    file.truncate(0)
    file.seek(0)
    return text


def test_a_question_and_its_answer_are_remembered_and_asked_with_the_next(talk: chat.Chat) -> None:
    assert talk.say("Why?")
    first = talk.messages[1].content
    assert "".join(first.split())[:10] in "".join(printed(talk).split())
    assert talk.say("And then?")
    assert [one.role for one in talk.messages] == ["user", "assistant", "user", "assistant"]


def test_the_base_models_answer_to_the_same_question_is_not_remembered(talk: chat.Chat) -> None:
    talk.say("/base")
    assert "nothing was asked yet" in printed(talk)
    talk.say("Why?")
    before, own = list(talk.messages), printed(talk)
    talk.say("/base")
    assert talk.messages == before
    assert "base model:" in printed(talk).replace(own, "")


def test_a_system_prompt_begins_anew_and_outlives_a_reset(talk: chat.Chat) -> None:
    talk.say("Why?")
    talk.say("/system Be brief.")
    talk.say("Who?")
    assert [one.role for one in talk.messages] == ["system", "user", "assistant"]
    talk.say("/reset")
    assert [one.content for one in talk.messages] == ["Be brief."]
    talk.say("/system")
    assert talk.messages == []


def test_a_saved_conversation_is_a_row_to_train_on(
    talk: chat.Chat, tmp_path: Path, make_config: Any
) -> None:
    from llm_engineering.talk.questions import read_questions

    file = tmp_path / "talk.jsonl"
    talk.say(f"/save {file}")
    assert not file.exists()  # nothing was said yet
    talk.say("Why?")
    talk.say(f"/save {file}")
    talk.say(f"/save {tmp_path}/nowhere/talk.jsonl")
    assert "No such file" in " ".join(printed(talk).split())  # lines break where a path is long
    (question,) = read_questions(str(file))
    assert question.reference == talk.messages[-1].content.strip()
    assert json.loads(file.read_text())["messages"][0] == {"role": "user", "content": "Why?"}


def test_settings_and_commands_that_are_none_are_told(talk: chat.Chat) -> None:
    talk.say("/temperature 0.7")
    assert talk.sampling.temperature == 0.7
    talk.say("/temperature hot")
    talk.say("/colour")
    told = printed(talk)
    assert "'hot' is no number from 0" in told
    assert "no such command" in told
    assert talk.sampling.temperature == 0.7
    assert not talk.say("/quit")


def test_a_question_that_cannot_be_asked_is_forgotten(talk: chat.Chat) -> None:
    talk.say("list " * 600)
    assert "begin a new one" in printed(talk)
    assert talk.messages == []


def test_an_answer_that_is_empty_is_told_and_stays(talk: chat.Chat, monkeypatch: Any) -> None:
    empty = Answer("", 0, is_cut=False)
    monkeypatch.setattr(talk.model, "answer", lambda *_, **__: [empty])
    talk.say("Why?")
    assert "(an empty answer)" in printed(talk)
    assert [one.content for one in talk.messages] == ["Why?", ""]


def test_an_answer_that_the_user_ends_stays_as_far_as_it_came(
    talk: chat.Chat, monkeypatch: Any
) -> None:
    def answer(*_: Any, on_text: Any, **__: Any) -> None:
        on_text("Because ")
        raise KeyboardInterrupt

    monkeypatch.setattr(talk.model, "answer", answer)
    talk.say("Why?")
    assert "it was cut" in printed(talk)
    assert talk.messages[1].content == "Because"


def test_the_command_reads_lines_until_there_are_no_more(
    make_run: Any, make_config: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    make_run()
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(make_config()))
    monkeypatch.setattr("sys.stdin", io.StringIO("/help\n\n/reset\n"))
    chat.run("", config, [])
    told = capsys.readouterr()
    assert "greedy, at most 512 tokens" in told.out
    assert "a new conversation" in told.out
    assert "adapter of one" in told.err
