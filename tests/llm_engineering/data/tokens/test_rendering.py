"""The texts of a conversation's turns, and the chat templates that cannot be trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.data.rows.message import Message
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.tokens.rendering import Turn, render_turns

SINGLE = [Message("user", "What is 1 + 1?"), Message("assistant", "Two.")]
SEVERAL = [
    Message("system", "Be short."),
    *SINGLE,
    Message("user", "And 2 + 2?"),
    Message("assistant", "Four.\n"),
]


def load(tiny_model: Path, template: str = "chatml") -> Any:
    from llm_engineering.model.tokenizer import load_tokenizer

    return load_tokenizer(ModelSettings(id=str(tiny_model), chat_template=template))


def refusal(conversation: list[Message], tokenizer: Any) -> str:
    (found,) = render_turns([conversation], tokenizer)
    assert isinstance(found, UnusableRow)
    return found.reason


def test_each_turn_is_what_it_adds_to_the_text(tiny_model: Path) -> None:
    plain, turns = render_turns([[Message("text", "Once")], SEVERAL], load(tiny_model))

    assert plain == []
    assert turns == [
        Turn(
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n"
            "<|im_start|>assistant\n",
            "Two.<|im_end|>\n",
        ),
        Turn(
            "<|im_start|>user\nAnd 2 + 2?<|im_end|>\n<|im_start|>assistant\n",
            "Four.\n<|im_end|>\n",
        ),
    ]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('only in pairs') }}", "the chat template refuses it: only in pairs"),
        (
            "{{ messages[0].content + 1 }}",
            'the chat template refuses it: can only concatenate str (not "int") to str',
        ),
        (
            "{{ messages[9].content }}",
            "the chat template refuses it: list object has no element 9",
        ),
        (
            "{% if %}",
            "the chat template refuses it: Expected an expression, got 'end of statement block'",
        ),
    ],
)
def test_a_template_that_fails_refuses_the_row(
    template: str, reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(template)

    assert refusal(SINGLE, load(tiny_model, str(path))) == reason


@pytest.mark.parametrize(
    "template",
    [
        # How many messages there are comes first, so a turn's text changes with the next.
        "{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
        # The prompt for generation is not how an answer begins.
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}Answer: {% endif %}",
    ],
)
def test_a_template_that_does_not_render_turn_by_turn_is_refused(
    template: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(template)

    assert refusal(SINGLE, load(tiny_model, str(path))) == (
        "the chat template renders a turn differently once the next is there, so what is trained "
        "would not be what is generated; choose another model.chat_template"
    )


@pytest.mark.parametrize(
    ("template", "number", "role"),
    [
        ("{% if m.role != 'system' %}{{ m.role }}:{{ m.content }}{% endif %}", 1, "system"),
        ("{{ m.role }}:{{ m.content if m.role != 'user' else 'asked' }}", 2, "user"),
        (
            "{{ m.role }}:{{ m.content | lower if m.role == 'assistant' else m.content }}",
            3,
            "assistant",
        ),
    ],
)
def test_a_template_that_leaves_out_or_changes_text_is_refused(
    template: str, number: int, role: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        f"{{% for m in messages %}}{template}<|im_end|>{{% endfor %}}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )

    assert refusal(SEVERAL, load(tiny_model, str(path))) == (
        f"the chat template does not render message {number} ({role}) as it stands, so other text "
        "than the data's would be trained; choose another model.chat_template"
    )


def test_a_row_that_the_template_refuses_leaves_the_others(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}"
        "{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ m.content }}<|im_end|>{% endfor %}"
    )
    tokenizer = load(tiny_model, str(path))

    found = render_turns([SINGLE, SEVERAL, SINGLE], tokenizer)

    assert found[1] == UnusableRow("the chat template refuses it: no system")
    assert found[0] == found[2] == [Turn("What is 1 + 1?<|im_end|>", "Two.<|im_end|>")]
