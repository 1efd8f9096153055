"""Every chat template that trl ships, and some it does not: what is trained is what is generated.

Each conversation of a form is rendered by the tokenizer itself, as generation would: the prompt of
every answer, and the answer behind it. The trained text must be that, letter by letter.
"""

from __future__ import annotations

import datetime
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.rows.message import Conversation, Message, ToolCall
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.tokens.tokenization import IGNORED, TokenizedRow, tokenize_conversations
from llm_engineering.model.chat_template import (
    TemplateInputs,
    apply_template,
    reasoning_key,
    takes_parts,
    turn_end_tokens,
)

_TRL = importlib.util.find_spec("trl")
TEMPLATES = Path(str(_TRL.origin)).parent / "chat_templates" if _TRL else Path()
FAMILIES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
ORIGINALS = [name for name in FAMILIES if not name.endswith("_training")]
DATE = datetime.date(2026, 1, 31)

SYSTEM = Message("system", "Be short.")
FIRST = [Message("user", "What is 1 + 1?"), Message("assistant", "Two.")]
SECOND = [Message("user", "And 2 + 2?"), Message("assistant", "Four.")]
CALL = ToolCall("add_up", {"a": 1234, "b": 'x"y'}, id="abcdefghi")
TOOL = {
    "type": "function",
    "function": {
        "name": "add_up",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "description": "one"}},
            "required": ["a"],
        },
    },
}
FORMS = {
    "one turn": Conversation(FIRST),
    "one turn with a system prompt": Conversation([SYSTEM, *FIRST]),
    "several turns": Conversation([*FIRST, *SECOND, *FIRST]),
    "reasoning": Conversation(
        [
            FIRST[0],
            Message("assistant", "Two.", reasoning="One and one."),
            SECOND[0],
            Message("assistant", "Four.", reasoning="Twice two."),
        ]
    ),
    "tools": Conversation(
        [
            FIRST[0],
            Message("assistant", "", tool_calls=(CALL,)),
            Message("tool", '{"sum": 77}', tool_call_id=CALL.id, name=CALL.name),
            Message("assistant", "Two."),
        ],
        [TOOL],
    ),
}

THINKS = "lets every answer begin with thinking"
CLOSED = "closes the thinking in its prompt"
NO_REASONING = "leaves out reasoning_content"
NO_CALLS = "leaves out tool_calls"
ONLY_PAIRS = "the chat template refuses it: "
REFUSED: dict[str, dict[str, str]] = {
    "cohere": {"reasoning": NO_REASONING, "tools": ONLY_PAIRS},
    "cohere2": {"reasoning": NO_REASONING, "tools": ONLY_PAIRS},
    "deepseek_r1_distill": dict.fromkeys(set(FORMS) - {"reasoning"}, THINKS),
    "deepseekv3": dict.fromkeys(set(FORMS) - {"reasoning"}, THINKS),
    "gemma": {
        "one turn with a system prompt": ONLY_PAIRS,
        "reasoning": NO_REASONING,
        "tools": ONLY_PAIRS,
    },
    "gemma3": {"reasoning": NO_REASONING, "tools": ONLY_PAIRS},
    "gemma4": {"reasoning": NO_REASONING},
    "gemma4_v2": {"reasoning": NO_REASONING},
    "gemma4_v3": {"reasoning": NO_REASONING},
    "gemma4_v4": {"reasoning": NO_REASONING},
    "idefics3": {"reasoning": NO_REASONING, "tools": NO_CALLS},
    "lfm2": {"reasoning": NO_REASONING, "tools": NO_CALLS},
    "lfm2_v2": {"reasoning": NO_REASONING},
    "llama3": {"reasoning": NO_REASONING, "tools": NO_CALLS},
    "llama3_1": {"reasoning": NO_REASONING},
    "llama3_2": {"reasoning": NO_REASONING},
    "llava_next": {"reasoning": NO_REASONING, "tools": ONLY_PAIRS},
    "nemotron_3_5_lightning": dict.fromkeys(set(FORMS) - {"reasoning"}, THINKS),
    "nemotron_3_nano": dict.fromkeys(set(FORMS) - {"reasoning"}, THINKS),
    "nemotron_3_super": dict.fromkeys(set(FORMS) - {"reasoning"}, THINKS),
    "nemotron_3_ultra": dict.fromkeys(set(FORMS) - {"reasoning"}, THINKS),
    "phi3": {"reasoning": NO_REASONING, "tools": NO_CALLS},
    "phi3_5": {"reasoning": NO_REASONING, "tools": NO_CALLS},
    "qwen2_5": {"reasoning": NO_REASONING},
    "qwen2_5_vl": {"reasoning": NO_REASONING, "tools": NO_CALLS},
    "qwen3_5_nothink": {"reasoning": CLOSED},
    "qwen3_instruct_2507": {"reasoning": NO_REASONING},
    "qwen3_vl": {"reasoning": NO_REASONING},
    "smolvlm": {"reasoning": NO_REASONING, "tools": NO_CALLS},
}
"""What the templates themselves leave out or do not take; nothing of it is trained in silence."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ORIGINALS)
def test_what_is_trained_is_what_is_generated(family: str, form: str, tokenizer_for: Any) -> None:
    template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    chat = Chat(tokenizer_for(template))

    found = chat.tokenize(FORMS[form])

    reason = REFUSED.get(family, {}).get(form)
    if reason is not None:
        assert isinstance(found, UnusableRow)
        assert reason in found.reason
        return
    assert not isinstance(found, UnusableRow), found
    assert_generated(chat, FORMS[form], found)


def test_the_templates_are_there() -> None:
    assert len(ORIGINALS) >= 39
    assert set(REFUSED) <= set(ORIGINALS)


@pytest.mark.parametrize(
    ("family", "kwargs"),
    [(name, {"enable_thinking": False}) for name in ORIGINALS if name.startswith("nemotron")]
    + [("qwen3", {"enable_thinking": False}), ("qwen3_6", {"enable_thinking": False})],
)
@pytest.mark.parametrize("form", ["one turn", "several turns", "tools"])
def test_thinking_can_be_switched_off(
    family: str, kwargs: dict[str, Any], form: str, tokenizer_for: Any
) -> None:
    template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    chat = Chat(tokenizer_for(template), TemplateInputs(variables=kwargs, date=DATE))

    found = chat.tokenize(FORMS[form])

    assert not isinstance(found, UnusableRow), found
    assert "</think>" not in "".join(chat.trained(row) for row in found)
    assert_generated(chat, FORMS[form], found)


@pytest.mark.parametrize(
    ("family", "rows"),
    [("qwen2_5", 1), ("llama3_2", 1), ("glm4moe", 1), ("qwen3", 3), ("gptoss", 3)],
)
def test_turns_share_a_row_where_the_template_writes_them_as_they_are_generated(
    family: str, rows: int, tokenizer_for: Any
) -> None:
    chat = Chat(tokenizer_for((TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")))

    found = chat.tokenize(FORMS["several turns"])

    assert isinstance(found, list)
    assert len(found) == rows
    assert [row.answer for row in found] == ([1, 3, 5] if rows == 3 else [1])


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        ("glm4moe", {"<|user|>", "<|observation|>"}),
        ("gptoss", {"<|call|>"}),
        ("gemma4", {"<|tool_response>"}),
        ("qwen2_5", set()),
        ("phi3", set()),
    ],
)
def test_a_template_tells_what_else_ends_an_answer(
    family: str, ends: set[str], tokenizer_for: Any
) -> None:
    chat = Chat(tokenizer_for((TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")))

    found = turn_end_tokens(chat.tokenizer, chat.inputs, {chat.tokenizer.eos_token_id})

    assert set(chat.tokenizer.convert_ids_to_tokens(sorted(found))) == ends


def test_what_could_end_an_answer_is_not_taken_for_its_end(tokenizer_for: Any) -> None:
    """A base model's <|endoftext|> under ChatML: model.eos_token is to be set, nothing guessed."""
    tokenizer = tokenizer_for((TEMPLATES / "qwen2_5.jinja").read_text(encoding="utf-8"))

    assert turn_end_tokens(tokenizer, TemplateInputs(), {tokenizer.eos_token_id}) == set()


# --- of memory: kinds that trl does not ship ---------------------------------------------------

MISTRAL_NEMO = (  # the system prompt goes to the last user's message, and goes away once answered
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
    "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}"
    "{{- bos_token }}{%- for m in turns %}{%- if m['role'] == 'user' %}"
    "{%- if loop.last and system is defined %}{{- '[INST]' + system + '\n\n' + m['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST]' + m['content'] + '[/INST]' }}{%- endif %}"
    "{%- else %}{{- m['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
QWQ = (  # thinks always, and forgets all of it
    "{%- for m in messages %}{%- set content = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{{- '<|im_start|>' + m.role + '\n' + content + '<|im_end|>' + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}"
)
GEMMA_4_LARGE = (  # closes the channel of thought in the prompt, and does not write it later
    "{{ bos_token }}{%- for m in messages %}"
    "{{- '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content + '<turn|>\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|turn>model\n<|channel>thought\n<channel|>' }}"
    "{%- endif %}"
)
COMMAND_R = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + m.content + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif m.role == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% else %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + m.content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "eos", "form", "rows"),
    [
        (
            MISTRAL_NEMO,
            "</s>",
            "one turn with a system prompt",
            [("Be short.\n\nWhat", "Two.</s>")],
        ),
        (
            GEMMA_4_LARGE,
            "<turn|>",
            "several turns",
            [
                ("What", "Two.<turn|>"),
                ("<|turn>model\nTwo.<turn|>\n", "Four.<turn|>"),
                ("<|turn>model\nFour.<turn|>\n", "Two.<turn|>"),
            ],
        ),
        (
            QWQ,
            "<|im_end|>",
            "reasoning",
            [
                ("What", "One and one.\n</think>\n\nTwo.<|im_end|>"),
                ("assistant\nTwo.<|im_end|>", "Twice two.\n</think>\n\nFour.<|im_end|>"),
            ],
        ),
        (
            COMMAND_R,
            "<|END_OF_TURN_TOKEN|>",
            "several turns",
            [
                (
                    "What",
                    "Two.<|END_OF_TURN_TOKEN|>Four.<|END_OF_TURN_TOKEN|>Two.<|END_OF_TURN_TOKEN|>",
                )
            ],
        ),
    ],
)
def test_other_kinds(
    template: str, eos: str, form: str, rows: list[tuple[str, str]], tokenizer_for: Any
) -> None:
    tokenizer = tokenizer_for(template, eos)
    chat = Chat(tokenizer, eos=eos)

    found = chat.tokenize(FORMS[form])

    assert isinstance(found, list), found
    assert [chat.trained(row) for row in found] == [answer for _, answer in rows]
    for row, (in_prompt, _) in zip(found, rows, strict=True):
        prompt = tokenizer.decode(row.input_ids[: row.prompt_tokens])
        assert in_prompt in prompt
        assert prompt == chat.prompt(FORMS[form].until(row.answer))


# --- the oracle --------------------------------------------------------------------------------


class Chat:
    """A tokenizer whose end of turn is what its template puts behind an answer."""

    def __init__(
        self, tokenizer: Any, inputs: TemplateInputs | None = None, eos: str | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.inputs = inputs or TemplateInputs(date=DATE)
        self.in_parts = takes_parts(tokenizer, self.inputs)
        if eos is None:
            whole = self.render(FORMS["one turn"], prompt=False)
            behind = whole.rpartition("Two.")[2]
            special = [str(one) for one in tokenizer.added_tokens_decoder.values()]
            ends = [(behind.index(one), -len(one), one) for one in special if one in behind]
            if ends:
                tokenizer.eos_token = min(ends)[2]
        known = {tokenizer.eos_token_id}
        self.stop_ids = frozenset(known | turn_end_tokens(tokenizer, self.inputs, known))
        self.stops = tokenizer.convert_ids_to_tokens(sorted(self.stop_ids))

    def tokenize(self, conversation: Conversation) -> list[TokenizedRow] | UnusableRow:
        (found,) = tokenize_conversations(
            [conversation],
            self.tokenizer,
            max_length=100_000,
            loss_on="completion",
            stop_ids=self.stop_ids,
            inputs=self.inputs,
        )
        return found

    def trained(self, row: TokenizedRow) -> str:
        return str(self.tokenizer.decode([label for label in row.labels if label != IGNORED]))

    def render(self, conversation: Conversation, *, prompt: bool) -> str:
        """By ``apply_chat_template``; of the forms that calls can have, the one that shows them."""
        key = reasoning_key(self.tokenizer.chat_template)
        wanted = [call.name for one in conversation.messages for call in one.tool_calls]
        texts = []
        for as_text in (False, True):
            for content in ("", None):
                messages = [one.to_template() for one in conversation.messages]
                for one in messages:
                    if "reasoning_content" in one:
                        one[key] = one.pop("reasoning_content")
                    if self.in_parts:
                        one["content"] = [{"type": "text", "text": one["content"]}]
                    if "tool_calls" in one:
                        one["content"] = content
                        for call in one["tool_calls"] if as_text else ():
                            call["function"]["arguments"] = '{"a": 1234, "b": "x\\"y"}'
                try:
                    texts += apply_template(
                        self.tokenizer,
                        [messages],
                        tools=conversation.tools,
                        inputs=self.inputs,
                        add_generation_prompt=prompt,
                    )
                except Exception:
                    continue
                if all(name in texts[-1] for name in wanted):
                    return texts[-1]
        return texts[0]

    def prompt(self, conversation: Conversation) -> str:
        return self.render(conversation, prompt=True)

    def generated(self, conversation: Conversation, index: int) -> str:
        """The answer as the model would write it: all behind its prompt, up to what stops it."""
        prompt = self.prompt(conversation.until(index))
        whole = self.render(conversation.until(index + 1), prompt=False)
        message = conversation.messages[index]
        if whole.startswith(prompt):
            answer = whole[len(prompt) :]
        else:  # it thought, and the template forgets that
            tail = whole[whole.rindex(message.content) :]
            answer = f"{message.reasoning}\n</think>\n\n{tail}"
        ends = [answer.index(stop) + len(stop) for stop in self.stops if stop in answer]
        if ends:
            return answer[: min(ends)]
        (stop,) = {"<|user|>", "<|observation|>"} - (
            {"<|user|>"} if message.tool_calls else {"<|observation|>"}
        )
        return answer + stop


def assert_generated(chat: Chat, conversation: Conversation, rows: list[TokenizedRow]) -> None:
    """Each answer is trained once, behind its own prompt, and nothing else is."""
    answers = [i for i, one in enumerate(conversation.messages) if one.role == "assistant"]
    expected = [chat.generated(conversation, index) for index in answers]
    assert "".join(chat.trained(row) for row in rows) == "".join(expected)
    assert sum(row.turns for row in rows) == len(answers)
    for row in rows:
        text = chat.tokenizer.decode(row.input_ids)
        assert row.input_ids == chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        mine = [i for i in answers if i >= row.answer][: row.turns]
        for index in mine:
            prompt = chat.prompt(conversation.until(index))
            assert text.startswith(prompt + chat.generated(conversation, index))
            start = len(chat.tokenizer(prompt, add_special_tokens=False)["input_ids"])
            assert row.labels[start - 1] == IGNORED
            assert row.labels[start] != IGNORED
    assert not re.search(r"\d{4}-\d\d-\d\d", "".join(chat.trained(row) for row in rows))


def test_thinking_in_the_text_is_not_trained_behind_thinking_that_is_empty(
    tokenizer_for: Any,
) -> None:
    chat = Chat(tokenizer_for((TEMPLATES / "qwen3_8.jinja").read_text(encoding="utf-8")))
    inline = Message("assistant", "<think>\nOne and one.\n</think>\n\nTwo.")

    found = chat.tokenize(Conversation([FIRST[0], inline]))

    assert isinstance(found, UnusableRow)
    assert found.reason.endswith("that is empty: bring it as reasoning_content")


def test_thinking_in_the_text_is_the_same_where_the_template_parts_it(tokenizer_for: Any) -> None:
    chat = Chat(tokenizer_for((TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8")))
    inline = Message("assistant", "<think>One and one.</think>Two.")

    (row,) = chat.tokenize(Conversation([FIRST[0], inline]))

    assert chat.trained(row) == "<think>\nOne and one.\n</think>\n\nTwo.<|im_end|>"
