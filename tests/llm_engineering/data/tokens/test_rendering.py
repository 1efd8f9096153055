"""The training rows of a conversation as text, and the chat templates that cannot be trained with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.data.rows.message import Conversation, Message, ToolCall
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.tokens.rendering import (
    EARLIER_REASONING,
    EMPTY_THINKING,
    OTHERWISE_ONCE_ANSWERED,
    UNROLLED,
    Notice,
    RenderedRow,
    Renderer,
    render_rows,
)
from llm_engineering.model.chat_template import TemplateInputs

SINGLE = Conversation([Message("user", "What is 1 + 1?"), Message("assistant", "Two.")])
SEVERAL = Conversation(
    [
        Message("system", "Be short."),
        *SINGLE.messages,
        Message("user", "And 2 + 2?"),
        Message("assistant", "Four.\n"),
    ]
)
CALL = ToolCall("add_up", {"a": 1234}, id="1")
CALLED = Conversation(
    [
        SINGLE.messages[0],
        Message("assistant", "", tool_calls=(CALL,)),
        Message("tool", '{"sum": 77}', tool_call_id="1", name="add_up"),
        SINGLE.messages[1],
    ],
    [{"type": "function", "function": {"name": "add_up", "parameters": {}}}],
)


def load(tiny_model: Path, template: str = "chatml") -> Any:
    from llm_engineering.model.tokenizer import load_tokenizer

    return load_tokenizer(ModelSettings(id=str(tiny_model), chat_template=template))


def rendered(
    conversations: list[Conversation],
    tokenizer: Any,
    notices: Counter[Notice] | None = None,
    loss_on: str = "completion",
) -> list[list[RenderedRow] | UnusableRow]:
    stop_ids = frozenset({tokenizer.eos_token_id})
    renderer = Renderer(tokenizer, TemplateInputs(), stop_ids, notices)
    return render_rows(conversations, renderer, loss_on=loss_on)


def refusal(conversation: Conversation, tokenizer: Any) -> str:
    (found,) = rendered([conversation], tokenizer)
    assert isinstance(found, UnusableRow)
    return found.reason


def pieces(row: RenderedRow) -> list[tuple[str, str]]:
    """What is before each answer, and the answer with its stop token."""
    found, start = [], 0
    for answer in row.answers:
        found.append((row.text[start : answer.start], row.text[answer.start : answer.end]))
        assert row.text[answer.stop : answer.end] == "<|im_end|>"
        start = answer.end
    assert start == len(row.text)
    return found


def test_a_row_is_the_text_up_to_its_last_stop_token(tiny_model: Path) -> None:
    ((row,),) = rendered([SEVERAL], load(tiny_model))  # type: ignore[misc]

    assert pieces(row) == [
        (
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n"
            "<|im_start|>assistant\n",
            "Two.<|im_end|>",
        ),
        (
            "\n<|im_start|>user\nAnd 2 + 2?<|im_end|>\n<|im_start|>assistant\n",
            "Four.\n<|im_end|>",
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
        ("{{ 1 // 0 }}", "the chat template refuses it: integer division or modulo by zero"),
        ("{{ ''.index('a') }}", "the chat template refuses it: substring not found"),
        ("{{ '%(a)s' | format(b=1) }}", "the chat template refuses it: 'a'"),
    ],
)
def test_a_template_that_fails_refuses_the_row(
    template: str, reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(template)

    assert refusal(SINGLE, load(tiny_model, str(path))) == reason


def test_a_prompt_that_is_not_how_the_answer_begins_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}Answer: {% endif %}"
    )

    assert refusal(SINGLE, load(tiny_model, str(path))) == (
        "the chat template's prompt is not how it begins the answer, so what is trained would not "
        "be what is generated: ' is 1 + 1?<|im_end|>Answer: ' against ' is 1 + 1?<|im_end|>Two."
        "<|im_end|>' at character 24; choose another model.chat_template"
    )


def test_an_answer_stands_behind_the_prompt_that_generation_sees(
    tiny_model: Path, tmp_path: Path
) -> None:
    """How many messages there are comes first, so the beginning changes with the answer."""
    path = tmp_path / "own.jinja"
    path.write_text(
        "{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    notices = Counter[Notice]()

    (rows,) = rendered([SEVERAL], load(tiny_model, str(path)), notices)

    assert isinstance(rows, list)
    assert [pieces(row) for row in rows] == [
        [("2Be short.<|im_end|>What is 1 + 1?<|im_end|>", "Two.<|im_end|>")],
        [
            (
                "4Be short.<|im_end|>What is 1 + 1?<|im_end|>Two.<|im_end|>And 2 + 2?<|im_end|>",
                "Four.\n<|im_end|>",
            )
        ],
    ]
    assert notices == {OTHERWISE_ONCE_ANSWERED: 2, UNROLLED: 1}


def test_only_the_answers_that_are_trained_need_to_be_written_so(
    tiny_model: Path, tmp_path: Path
) -> None:
    """The first answer could not be trained; with the last alone, nobody asks."""
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt and messages | length < 3 %}Answer: {% endif %}"
    )
    tokenizer = load(tiny_model, str(path))

    (whole,) = rendered([SEVERAL], tokenizer)
    (last,) = rendered([SEVERAL], tokenizer, loss_on="last_turn")

    assert isinstance(whole, UnusableRow)
    assert isinstance(last, list)
    assert pieces(last[0])[0][1] == "Four.\n<|im_end|>"


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:"
    "{% if m.role == 'assistant' and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)


def test_reasoning_is_trained_where_it_is_the_answers_own(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(THINKING)
    thought = Conversation(
        [
            SINGLE.messages[0],
            Message("assistant", "Two.", reasoning="One, one."),
            SEVERAL.messages[3],
            Message("assistant", "Four.", reasoning="Two, two."),
        ]
    )
    notices = Counter[Notice]()
    tokenizer = load(tiny_model, str(path))

    (rows,) = rendered([thought], tokenizer, notices)

    assert isinstance(rows, list)
    first, second = (pieces(row)[0] for row in rows)
    assert first[1] == "<think>One, one.</think>Two.<|im_end|>"
    assert second[0].endswith(
        "assistant:Two.<|im_end|><|im_start|>user:And 2 + 2?<|im_end|><|im_start|>assistant:"
    )
    assert second[1] == "<think>Two, two.</think>Four.<|im_end|>"
    assert notices == {UNROLLED: 1, EARLIER_REASONING: 1}

    notices.clear()
    (plain,) = rendered([SINGLE], tokenizer, notices)

    assert isinstance(plain, list)
    assert pieces(plain[0])[0][1] == "<think></think>Two.<|im_end|>"
    assert notices == {EMPTY_THINKING: 1}


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            '{% for m in messages %}{{ m.content }}{% if m.tool_calls %}add_up{"a": 1234}{% endif %}'
            "<|im_end|>{% endfor %}",
            "the chat template leaves out tools, so generation would never see it",
        ),
        (
            "{% for t in tools %}{{ t.function.name }}{% endfor %}"
            "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
            "the chat template leaves out tool_calls (the call of add_up)",
        ),
        (
            "{{ tools }}{% for m in messages if m.role != 'tool' %}{{ m.content }}"
            "{{ m.tool_calls | tojson if m.tool_calls }}<|im_end|>{% endfor %}",
            "the chat template does not render message 3 (tool) as it stands",
        ),
    ],
)
def test_a_template_that_leaves_out_tools_is_refused(
    template: str, reason: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(template)

    assert refusal(CALLED, load(tiny_model, str(path))).startswith(reason)


def test_a_call_that_is_gone_once_answered_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{{ tools | tojson }}{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{{ m.tool_calls | tojson if m.tool_calls and loop.last }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )

    assert refusal(CALLED, load(tiny_model, str(path))).startswith(
        "the chat template leaves out tool_calls (the arguments of add_up in message 2), so "
        "generation would never see it"
    )


def test_calls_take_the_form_that_the_template_reads(tiny_model: Path, tmp_path: Path) -> None:
    """Arguments joined to a text, as DeepSeek's templates do, are JSON and no Python."""
    path = tmp_path / "own.jinja"
    path.write_text(
        "{{ tools | tojson }}{% for m in messages %}{{ m.role }}:"
        "{% if m.content is none %}{% for c in m.tool_calls %}{{ c.function.name ~ c.function.arguments }}"
        "{% endfor %}{% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )

    (rows,) = rendered([CALLED], load(tiny_model, str(path)))

    assert isinstance(rows, list)
    (row,) = rows
    assert [answer for _, answer in pieces(row)] == [
        'add_up{"a": 1234}<|im_end|>',
        "Two.<|im_end|>",
    ]


def test_reasoning_that_a_template_drops_is_refused(tiny_model: Path) -> None:
    thought = Conversation(
        [SINGLE.messages[0], Message("assistant", "Two.", reasoning="One, one.")]
    )

    assert refusal(thought, load(tiny_model)).startswith(
        "the chat template leaves out reasoning_content, so that what is trained would not be"
    )


def test_what_follows_the_first_stop_token_is_dropped(tiny_model: Path, tmp_path: Path) -> None:
    """Phi-3 puts the EOS behind the end of a turn, and both may stop generation."""
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant:{% else %}<|endoftext|>{% endif %}"
    )
    tokenizer = load(tiny_model, str(path))
    both = frozenset(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))

    (rows,) = render_rows(
        [SEVERAL], Renderer(tokenizer, TemplateInputs(), both), loss_on="completion"
    )

    assert isinstance(rows, list)
    assert [answer for _, answer in pieces(rows[0])] == ["Two.<|im_end|>", "Four.\n<|im_end|>"]


def test_a_template_that_ends_a_turn_too_early_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.role }}:<|im_end|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )

    assert refusal(SINGLE, load(tiny_model, str(path))).startswith(
        "the chat template puts '<|im_end|>', which ends a turn, before the end of what the answer"
    )


def test_an_answer_that_opens_with_thinking_needs_some(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant:"
        "{{ '<think></think>' if enable_thinking is defined and not enable_thinking else '<think>\n' }}"
        "{% endif %}"
    )
    tokenizer = load(tiny_model, str(path))
    off = Renderer(
        tokenizer,
        TemplateInputs(variables={"enable_thinking": False}),
        frozenset({tokenizer.eos_token_id}),
    )

    assert refusal(SINGLE, tokenizer) == (
        "the chat template lets every answer begin with thinking (its prompt ends with <think>), "
        "and this one has none: bring reasoning_content in the data, set "
        "model.chat_template_kwargs: {enable_thinking: false}, or choose another model.chat_template"
    )
    (rows,) = render_rows([SINGLE], off, loss_on="completion")
    assert isinstance(rows, list)
    assert pieces(rows[0])[0][0].endswith("assistant:<think></think>")
    assert pieces(rows[0])[0][1] == "Two.<|im_end|>"


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (
            "{% if m.role != 'system' %}{{ m.role }}:{{ m.content }}{% endif %}",
            "leaves out the system prompt 'Be short.', so generation would never see it",
        ),
        (
            "{{ m.role }}:{{ m.content if m.role != 'user' else 'asked' }}",
            "does not render message 2 (user) as it stands, so other text than the data's would",
        ),
        (
            "{{ m.role }}:{{ m.content | lower if m.role == 'assistant' else m.content }}",
            "does not render the answer as it stands, so other text than the data's would",
        ),
    ],
)
def test_a_template_that_leaves_out_or_changes_text_is_refused(
    template: str, what: str, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        f"{{% for m in messages %}}{template}<|im_end|>{{% endfor %}}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )

    assert refusal(SEVERAL, load(tiny_model, str(path))).startswith(f"the chat template {what}")


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

    found = rendered([SINGLE, SEVERAL, SINGLE], tokenizer)

    assert found[1] == UnusableRow("the chat template refuses it: no system")
    assert found[0] == found[2]
    assert isinstance(found[0], list)
    assert pieces(found[0][0]) == [("What is 1 + 1?<|im_end|>", "Two.<|im_end|>")]
