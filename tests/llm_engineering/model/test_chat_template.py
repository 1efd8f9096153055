"""Choosing the chat template, and what the shipped ones render, to the character."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ConfigError
from llm_engineering.model.chat_template import (
    TemplateInputs,
    apply_template,
    for_template,
    read_chat_template,
    takes_parts,
    template_inputs,
)

# The handbook's text, from its fine-tuning chapter.
ALPACA_INTRODUCTION = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request."
)
EOS = "<|im_end|>"


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def system(content: str) -> dict[str, str]:
    return {"role": "system", "content": content}


def with_template(tiny_model: Path, name: str) -> Any:
    from llm_engineering.model.tokenizer import load_tokenizer

    return load_tokenizer(ModelSettings(id=str(tiny_model), chat_template=name))


@pytest.fixture
def alpaca(tiny_model: Path) -> Any:
    """A tokenizer with the alpaca template and no BOS token, as many base models have."""
    tokenizer = with_template(tiny_model, "alpaca")
    tokenizer.bos_token = None
    return tokenizer


@pytest.fixture
def chatml(tiny_model: Path) -> Any:
    return with_template(tiny_model, "chatml")


def test_no_name_keeps_the_tokenizers_own_template() -> None:
    assert read_chat_template(None) is None


@pytest.mark.parametrize("name", ["alpaca", "chatml"])
def test_a_shipped_template_is_found_by_its_name(name: str) -> None:
    assert "add_generation_prompt" in str(read_chat_template(name))


def test_a_shipped_name_wins_over_a_file_beside_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alpaca").write_text("other")
    monkeypatch.chdir(tmp_path)

    assert ALPACA_INTRODUCTION in str(read_chat_template("alpaca"))


def test_a_template_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{{ messages }} Größe\n", encoding="utf-8")

    assert read_chat_template(str(path)) == "{{ messages }} Größe\n"


@pytest.mark.parametrize("name", ["vicuna", "none/own.jinja", "."])
def test_a_template_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_chat_template(name)

    assert str(caught.value) == (
        f"model.chat_template: {name!r} is neither one of alpaca, chatml nor a .jinja file"
    )


def test_a_template_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_bytes(b"\xff")

    with pytest.raises(ConfigError) as caught:
        read_chat_template(str(path))

    assert str(caught.value).startswith(
        f"model.chat_template: {path} cannot be read as UTF-8: 'utf-8' codec can't decode byte 0xff"
    )


def test_alpaca_renders_the_handbooks_text(alpaca: Any) -> None:
    text = alpaca.apply_chat_template([user("Add 1 and 1."), assistant("2")], tokenize=False)

    assert text == (
        f"{ALPACA_INTRODUCTION}\n\n### Instruction:\nAdd 1 and 1.\n\n### Response:\n2{EOS}"
    )


def test_alpaca_prompts_with_the_handbooks_text(alpaca: Any) -> None:
    text = alpaca.apply_chat_template(
        [user("Add 1 and 1.")], tokenize=False, add_generation_prompt=True
    )

    assert text == f"{ALPACA_INTRODUCTION}\n\n### Instruction:\nAdd 1 and 1.\n\n### Response:\n"


def test_alpaca_begins_with_the_bos_token_where_there_is_one(tiny_model: Path) -> None:
    tokenizer = with_template(tiny_model, "alpaca")

    text = tokenizer.apply_chat_template([user("Hi"), assistant("Yes")], tokenize=False)

    assert text == (
        f"<|im_start|>{ALPACA_INTRODUCTION}\n\n### Instruction:\nHi\n\n### Response:\nYes{EOS}"
    )


def test_alpaca_with_several_turns_and_a_system_prompt(alpaca: Any) -> None:
    messages = [system("Be short."), user("a"), assistant("b"), user("c"), assistant("d")]

    assert alpaca.apply_chat_template(messages, tokenize=False) == (
        f"Be short.\n\n### Instruction:\na\n\n### Response:\nb{EOS}\n\n"
        f"### Instruction:\nc\n\n### Response:\nd{EOS}"
    )


def test_chatml_marks_every_message_with_its_role(chatml: Any) -> None:
    messages = [system("Be short."), user("a"), assistant("b")]

    assert chatml.apply_chat_template(messages, tokenize=False) == (
        "<|im_start|>system\nBe short.<|im_end|>\n"
        "<|im_start|>user\na<|im_end|>\n"
        "<|im_start|>assistant\nb<|im_end|>\n"
    )
    assert chatml.apply_chat_template(
        messages[:2], tokenize=False, add_generation_prompt=True
    ).endswith("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("name", ["alpaca", "chatml"])
@pytest.mark.parametrize("text", ["  padded \n", "{{ 1 + 1 }}", "<b>&amp;</b>", "Größe 日本"])
def test_a_template_leaves_the_text_as_it_is(name: str, text: str, tiny_model: Path) -> None:
    tokenizer = with_template(tiny_model, name)

    rendered = tokenizer.apply_chat_template([user(text), assistant(text)], tokenize=False)

    assert rendered.count(text) == 2


# --- what a template is given beside messages --------------------------------------------------

DATED = (
    "{{ strftime_now('%d %b %Y') }}{% if mood is defined %}, {{ mood }}{% endif %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}"
)


def settings(**values: Any) -> ModelSettings:
    return ModelSettings(id="any", **values)


def test_a_date_stands_still_and_variables_are_given(tiny_model: Path) -> None:
    tokenizer = with_template(tiny_model, "chatml")
    tokenizer.chat_template = DATED
    chosen = settings(
        chat_template_kwargs={"mood": "calm"}, chat_template_date=datetime.date(1999, 12, 31)
    )

    (text,) = apply_template(
        tokenizer,
        [[user("Hi")]],
        inputs=template_inputs(chosen, DATED),
        add_generation_prompt=False,
    )

    assert text == "31 Dec 1999, calmHi"


def test_a_date_that_is_not_chosen_is_todays() -> None:
    assert template_inputs(settings(), DATED).date == datetime.date.today()


def test_a_template_without_a_date_has_none() -> None:
    assert template_inputs(settings(), "{{ messages }}") == TemplateInputs()
    with pytest.raises(ConfigError, match="2026-01-02 is asked for, but this chat template prints"):
        template_inputs(settings(chat_template_date=datetime.date(2026, 1, 2)), "{{ messages }}")


@pytest.mark.parametrize(
    "template",
    [
        "{% if enable_thinking is defined and not enable_thinking %}{% endif %}",
        "{% if not enable_thinking is defined %}{% set enable_thinking = true %}{% endif %}",
        "{% set enable_thinking = enable_thinking | default(true) %}{{ enable_thinking }}",
        "{% for m in messages %}{% generation %}{{ enable_thinking }}{% endgeneration %}{% endfor %}",
    ],
)
def test_variables_are_those_that_the_template_asks_for(template: str) -> None:
    chosen = settings(chat_template_kwargs={"enable_thinking": False})

    assert template_inputs(chosen, template).variables == {"enable_thinking": False}


def test_a_variable_that_the_template_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        template_inputs(settings(chat_template_kwargs={"enable_thinkng": False}), DATED)

    assert str(caught.value) == (
        "model.chat_template_kwargs: enable_thinkng is no variable of this chat template; it has mood"
    )


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "strftime_now"])
def test_what_every_call_sets_is_no_variable(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is set by this project"):
        settings(chat_template_kwargs={name: 1})


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{{ message.reasoning_content }}", "reasoning_content"),
        ('{% if "thinking" in message %}{{ message.thinking }}{% endif %}', "thinking"),
        ("{{ message['reasoning'] }}{% if thinking %}{% endif %}", "reasoning"),
        ("{{ message.content }}", "reasoning_content"),
    ],
)
def test_reasoning_goes_under_the_key_that_the_template_reads(template: str, key: str) -> None:
    (message,) = for_template([assistant("So.") | {"reasoning_content": "Hm."}], template)

    assert message == assistant("So.") | {key: "Hm."}


def test_content_goes_in_parts_where_the_template_reads_no_text(tiny_model: Path) -> None:
    tokenizer = with_template(tiny_model, "chatml")
    assert not takes_parts(tokenizer, TemplateInputs())

    tokenizer.chat_template = (
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    )

    assert takes_parts(tokenizer, TemplateInputs())
    assert for_template([user("Hi")], "", in_parts=True) == [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    ]
