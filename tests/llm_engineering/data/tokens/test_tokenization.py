"""Which tokens are trained: the answers up to and with their stop token, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.data.rows.conversations import to_conversation
from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.unusable import UnusableRow, UnusableRowError
from llm_engineering.data.tokens import tokenization
from llm_engineering.data.tokens.rendering import Notice
from llm_engineering.data.tokens.tokenization import (
    IGNORED,
    TokenizedRow,
    _cut,
    _different,
    _nth,
    _parting_tokens,
    prompt_of,
    tokenize_conversations,
)

EOS = "<|im_end|>"
CHATML = (
    Path(__file__).resolve().parents[4]
    / "llm_engineering"
    / "model"
    / "chat_templates"
    / "chatml.jinja"
)
LONG_ENOUGH = 512

ASKED = Message("user", "What is 1 + 1?")
SINGLE = Conversation([ASKED, Message("assistant", "Two.")])
SEVERAL = Conversation(
    [
        Message("system", "Be short."),
        *SINGLE.messages,
        Message("user", "And 2 + 2?"),
        Message("assistant", "Four.\n"),
    ]
)


def load(tiny_model: Path, template: str = "chatml") -> Any:
    from llm_engineering.model.tokenizer import load_tokenizer

    return load_tokenizer(ModelSettings(id=str(tiny_model), chat_template=template))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load(tiny_model)


def label(
    conversation: Conversation,
    tokenizer: Any,
    *,
    max_length: int = LONG_ENOUGH,
    loss_on: str = "completion",
) -> TokenizedRow:
    rows = tokenized(conversation, tokenizer, max_length=max_length, loss_on=loss_on)
    assert isinstance(rows, list)
    (row,) = rows
    return row


def tokenized(
    conversation: Conversation,
    tokenizer: Any,
    *,
    max_length: int = LONG_ENOUGH,
    loss_on: str = "completion",
) -> list[TokenizedRow] | UnusableRow:
    (row,) = tokenize_conversations(
        [conversation],
        tokenizer,
        max_length=max_length,
        loss_on=loss_on,
        stop_ids=frozenset({tokenizer.eos_token_id}),
    )
    return row


def trained_text(row: TokenizedRow, tokenizer: Any) -> str:
    return str(tokenizer.decode([token for token in row.labels if token != IGNORED]))


def refusal(conversation: Conversation, tokenizer: Any, **settings: Any) -> str:
    row = tokenized(conversation, tokenizer, **settings)
    assert isinstance(row, UnusableRow)
    return row.reason


# --- what is trained ---------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["chatml", "alpaca"])
def test_only_the_answer_and_its_stop_token_are_trained(template: str, tiny_model: Path) -> None:
    tokenizer = load(tiny_model, template)

    row = label(SINGLE, tokenizer)

    assert trained_text(row, tokenizer) == f"Two.{EOS}"
    assert row.turns == 1
    assert not row.truncated


def test_the_prompt_is_masked_and_kept(tokenizer: Any) -> None:
    row = label(SINGLE, tokenizer)
    prompt = "<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n"

    assert tokenizer.decode(row.input_ids) == f"{prompt}Two.{EOS}"
    assert tokenizer.decode(prompt_of(row.input_ids, row.labels)) == prompt
    first = row.labels.index(next(token for token in row.labels if token != IGNORED))
    assert row.labels[:first] == [IGNORED] * first
    assert row.labels[first:] == row.input_ids[first:]


def test_nothing_follows_the_last_stop_token(tokenizer: Any) -> None:
    row = label(SINGLE, tokenizer)

    assert row.input_ids[-1] == row.labels[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("template", ["chatml", "alpaca"])
@pytest.mark.parametrize(("conversation", "turns"), [(SINGLE, 1), (SEVERAL, 2)])
def test_every_answer_trains_its_stop_token_exactly_once(
    conversation: Conversation, turns: int, template: str, tiny_model: Path
) -> None:
    tokenizer = load(tiny_model, template)

    row = label(conversation, tokenizer)

    assert row.turns == turns
    assert row.labels.count(tokenizer.eos_token_id) == turns


def test_several_turns_train_every_answer_and_no_question(tokenizer: Any) -> None:
    row = label(SEVERAL, tokenizer)

    assert trained_text(row, tokenizer) == f"Two.{EOS}Four.\n{EOS}"
    assert tokenizer.decode(row.input_ids) == (
        "<|im_start|>system\nBe short.<|im_end|>\n"
        "<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n"
        "<|im_start|>assistant\nTwo.<|im_end|>\n"
        "<|im_start|>user\nAnd 2 + 2?<|im_end|>\n"
        "<|im_start|>assistant\nFour.\n<|im_end|>"
    )


def test_what_follows_a_stop_token_between_turns_is_read_and_not_trained(tokenizer: Any) -> None:
    row = label(SEVERAL, tokenizer)
    stop = row.labels.index(tokenizer.eos_token_id)

    assert tokenizer.decode(row.input_ids[stop + 1 : stop + 3]) == "\n<|im_start|>"
    assert row.labels[stop + 1] == IGNORED


@pytest.mark.parametrize("conversation", [SINGLE, SEVERAL])
def test_loss_on_everything_trains_every_token(conversation: Conversation, tokenizer: Any) -> None:
    row = label(conversation, tokenizer, loss_on="everything")

    assert row.labels == row.input_ids
    assert row.input_ids == label(conversation, tokenizer).input_ids


# --- the same tokens as in generation ----------------------------------------------------------


@pytest.mark.parametrize("template", ["chatml", "alpaca"])
def test_a_prompt_has_the_tokens_that_generation_will_give_it(
    template: str, tiny_model: Path, make_config: Any
) -> None:
    from llm_engineering.data.read.sources import read_rows

    tokenizer = load(tiny_model, template)
    rows = list(read_rows(make_config().data.sources[0].source))
    assert len(rows) == 48
    for row in rows:
        conversation = to_conversation(row.values)  # type: ignore[union-attr]
        tokens = label(conversation, tokenizer)

        generated_from = tokenizer.apply_chat_template(
            [one.to_template() for one in conversation.messages[:-1]],
            add_generation_prompt=True,
            return_dict=False,
        )

        assert prompt_of(tokens.input_ids, tokens.labels) == generated_from


@pytest.mark.parametrize("answer", ["\n\nafter blank lines", " after a space", "assistant\n", "é"])
def test_a_prompts_tokens_do_not_depend_on_the_answer(answer: str, tokenizer: Any) -> None:
    expected = label(SINGLE, tokenizer)

    row = label(Conversation([ASKED, Message("assistant", answer)]), tokenizer)

    assert prompt_of(row.input_ids, row.labels) == prompt_of(expected.input_ids, expected.labels)
    assert trained_text(row, tokenizer) == answer + EOS


@pytest.mark.parametrize("kind", ["first", "always"])
@pytest.mark.parametrize("template", ["chatml", "alpaca"])
def test_a_metaspace_tokenizer_reads_the_whole_text_at_once(kind: str, template: str) -> None:
    """Llama 2's and Mistral's put a space before what is encoded apart, and none inside a text."""
    tokenizer = metaspace(template, prepend_scheme=kind)

    row = label(SEVERAL, tokenizer)

    messages = [one.to_template() for one in SEVERAL.messages]
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    assert row.input_ids == whole[: len(row.input_ids)]
    assert trained_text(row, tokenizer).replace(" ", "") == "Two.</s>Four.\n</s>"
    pieces = tokenizer.convert_ids_to_tokens(row.input_ids)
    assert not pieces[row.prompt_tokens].startswith("▁")
    for index in (2, 4):
        prompt = tokenizer.apply_chat_template(
            messages[:index], add_generation_prompt=True, return_dict=False
        )
        assert row.input_ids[: len(prompt)] == prompt
        assert row.labels[len(prompt) - 1] == IGNORED
        assert row.labels[len(prompt)] != IGNORED


def metaspace(template: str, prepend_scheme: str, *, split: bool = False) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from llm_engineering.model.chat_template import read_chat_template

    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=split)
    bpe.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    bpe.train_from_iterator([message.content for message in SEVERAL.messages] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    text = str(read_chat_template(template))
    tokenizer.chat_template = text.replace("<|im_start|>", "<s>").replace("<|im_end|>", "</s>")
    return tokenizer


def test_a_tokenizer_without_offsets() -> None:
    """ByT5's is Python; what is trained is found by tokens alone."""
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = CHATML.read_text().replace("<|im_end|>", "</s>")
    assert not tokenizer.is_fast

    row = label(SEVERAL, tokenizer)

    assert trained_text(row, tokenizer) == "Two.</s>Four.</s>"  # its </s> takes the space before
    told = replace(SEVERAL.messages[1], trained=True)
    telling = replace(SEVERAL, messages=[SEVERAL.messages[0], told, *SEVERAL.messages[2:]])
    assert "ByT5Tokenizer does not tell of its tokens; the model needs a tokenizer.json" in refusal(
        telling, tokenizer
    )


def test_a_prompt_whose_last_token_joins_the_answer_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer = load(tiny_model, str(path))
    answer = Message("assistant", "the end")
    prompt = tokenizer("assistant: ", add_special_tokens=False)["input_ids"]
    whole = tokenizer("assistant: the end", add_special_tokens=False)["input_ids"]
    assert whole[: len(prompt)] != prompt  # "Ġ" and "Ġthe"
    asked = tokenizer(f"user: {ASKED.content}{EOS}", add_special_tokens=False)["input_ids"]
    place = len(asked + prompt) - 1

    assert refusal(Conversation([ASKED, answer]), tokenizer) == (
        "the tokens of the prompt are others before its answer than alone, so what is trained "
        f"would not be what is generated: at token {place} 'Ġthe' 'Ġ' 'end', alone 'Ġ'. A space or "
        "line break at the end of the prompt joins the answer: mend the data, or the chat template"
    )


# --- what messages say of themselves -----------------------------------------------------------


def saying(**trained: bool) -> Conversation:
    """``SEVERAL`` with what messages of these numbers (m0, m1 ...) say of themselves."""
    messages = [
        replace(one, trained=trained.get(f"m{number}"))
        for number, one in enumerate(SEVERAL.messages)
    ]
    return Conversation(messages)


@pytest.mark.parametrize(
    ("conversation", "loss_on", "text"),
    [
        (saying(m2=False), "completion", f"Four.\n{EOS}"),
        (saying(m4=False), "completion", f"Two.{EOS}"),
        (saying(m2=True), "last_turn", f"Two.{EOS}Four.\n{EOS}"),
        (saying(m2=True, m4=False), "last_turn", f"Two.{EOS}"),
        (saying(m1=True), "completion", f"What is 1 + 1?Two.{EOS}Four.\n{EOS}"),
        (saying(m1=False), "completion", f"Two.{EOS}Four.\n{EOS}"),
    ],
)
def test_a_message_says_whether_it_is_trained(
    conversation: Conversation, loss_on: str, text: str, tokenizer: Any
) -> None:
    row = label(conversation, tokenizer, loss_on=loss_on)

    assert trained_text(row, tokenizer) == text
    assert row.turns == text.count(EOS)


def test_a_message_that_is_not_to_be_trained_is_masked_in_everything(tokenizer: Any) -> None:
    everything = label(SEVERAL, tokenizer, loss_on="everything")

    row = label(saying(m1=False, m2=False), tokenizer, loss_on="everything")

    assert row.input_ids == everything.input_ids
    masked = [token for token, one in zip(row.input_ids, row.labels, strict=True) if one == IGNORED]
    assert tokenizer.decode(masked) == f"What is 1 + 1?Two.{EOS}"


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (saying(m2=False, m4=False), "the data says of every answer not to train it"),
        (saying(m3=True, m4=False), "the data says to train a user message behind the last answer"),
    ],
)
def test_what_cannot_be_trained_as_the_data_says_is_refused(
    conversation: Conversation, reason: str, tokenizer: Any
) -> None:
    assert refusal(conversation, tokenizer).startswith(reason)


# --- the template's own marks ------------------------------------------------------------------


def test_the_templates_generation_markers_say_what_is_trained(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}:"
        "{% if m.role == 'assistant' %}[sure]{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
    )
    tokenizer = load(tiny_model, str(path))

    row = label(SEVERAL, tokenizer)

    assert tokenizer.decode(row.input_ids).count("[sure]") == 2
    assert trained_text(row, tokenizer) == f"Two.{EOS}Four.\n{EOS}"


# --- rows of several turns that give several training rows -------------------------------------


@pytest.fixture
def forgetful(tiny_model: Path, tmp_path: Path) -> Any:
    """A tokenizer whose template writes an earlier answer otherwise, as Qwen3's does."""
    path = tmp_path / "forgetful.jinja"
    path.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}:"
        "{% if m.role == 'assistant' and loop.last %}new: {% endif %}{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
    )
    return load(tiny_model, str(path))


def test_every_answer_has_its_own_row_then(forgetful: Any) -> None:
    rows = tokenized(SEVERAL, forgetful)

    assert isinstance(rows, list)
    assert [trained_text(row, forgetful) for row in rows] == [
        f"new: Two.{EOS}",
        f"new: Four.\n{EOS}",
    ]
    assert [(row.turns, row.answer) for row in rows] == [(1, 2), (1, 4)]
    assert "assistant:Two." in forgetful.decode(rows[1].input_ids)


def test_everything_is_trained_once_then(forgetful: Any) -> None:
    rows = tokenized(SEVERAL, forgetful, loss_on="everything")

    assert isinstance(rows, list)
    first, second = rows
    assert trained_text(first, forgetful) == f"new: Two.{EOS}"
    masked = [i for i, one in zip(second.input_ids, second.labels, strict=True) if one == IGNORED]
    assert forgetful.decode(masked) == f"Two.{EOS}"  # which generation never writes so


def test_rows_that_do_not_fit_are_left_out_and_count_as_cut(forgetful: Any) -> None:
    whole = tokenized(SEVERAL, forgetful)
    assert isinstance(whole, list)

    rows = tokenized(SEVERAL, forgetful, max_length=len(whole[0].input_ids))

    assert isinstance(rows, list)
    assert [trained_text(row, forgetful) for row in rows] == [f"new: Two.{EOS}"]
    assert [row.truncated for row in rows] == [True]


# --- cutting -----------------------------------------------------------------------------------


def test_a_row_of_exactly_the_longest_length_is_whole(tokenizer: Any) -> None:
    whole = label(SINGLE, tokenizer)

    assert label(SINGLE, tokenizer, max_length=len(whole.input_ids)) == whole


def test_a_row_one_token_longer_loses_its_stop_token(tokenizer: Any) -> None:
    whole = label(SINGLE, tokenizer)
    length = len(whole.input_ids) - 1

    row = label(SINGLE, tokenizer, max_length=length)

    assert row.truncated
    assert row.input_ids == whole.input_ids[:length]
    assert row.labels == whole.labels[:length]
    assert trained_text(row, tokenizer) == "Two."


def test_a_prompt_that_leaves_room_for_one_token_trains_one_token(tokenizer: Any) -> None:
    whole = label(SINGLE, tokenizer)
    prompt = len(prompt_of(whole.input_ids, whole.labels))

    row = label(SINGLE, tokenizer, max_length=prompt + 1)

    assert sum(token != IGNORED for token in row.labels) == 1


@pytest.mark.parametrize("shorter_by", [0, 1])
def test_a_prompt_that_fills_the_row_is_refused(shorter_by: int, tokenizer: Any) -> None:
    whole = label(SINGLE, tokenizer)
    length = len(prompt_of(whole.input_ids, whole.labels)) - shorter_by

    assert refusal(SINGLE, tokenizer, max_length=length) == (
        f"its prompt fills model.max_seq_length ({length} tokens), so nothing of the answer is "
        "trained; raise it, or shorten the row"
    )


# --- rows and templates from which the wrong thing would be learnt -----------------------------


@pytest.mark.parametrize("template", ["chatml", "alpaca"])
@pytest.mark.parametrize("position", ["Two.{}Three.", "{}Two.", "Two.{}"])
def test_an_answer_that_holds_a_stop_token_is_refused(
    position: str, template: str, tiny_model: Path
) -> None:
    answer = Message("assistant", position.format(EOS))

    assert refusal(Conversation([ASKED, answer]), load(tiny_model, template)) == (
        "the answer's text holds '<|im_end|>', which ends a turn: "
        "the model would learn to stop in the middle"
    )


def test_a_template_may_trim_the_text(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.role }}:{{ m.content | trim }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    tokenizer = load(tiny_model, str(path))

    assert trained_text(label(SEVERAL, tokenizer), tokenizer) == f"Two.{EOS}Four.{EOS}"


# --- the last turn, plain texts, many rows -----------------------------------------------------


def test_the_last_turn_alone_is_trained_and_the_others_are_read(tokenizer: Any) -> None:
    row = label(SEVERAL, tokenizer, loss_on="last_turn")

    assert trained_text(row, tokenizer) == f"Four.\n{EOS}"
    assert row.input_ids == label(SEVERAL, tokenizer).input_ids
    assert (row.turns, row.answer) == (1, 4)
    assert row.prompt_tokens == len(prompt_of(row.input_ids, row.labels))


def test_a_last_turn_that_does_not_fit_is_refused(tokenizer: Any) -> None:
    fits = label(SEVERAL, tokenizer, loss_on="last_turn").prompt_tokens

    assert "nothing of the answer is trained" in refusal(
        SEVERAL, tokenizer, loss_on="last_turn", max_length=fits
    )


@pytest.mark.parametrize("text", ["Once upon a time", f"Once upon a time{EOS}"])
def test_a_plain_text_ends_once(text: str, tokenizer: Any) -> None:
    row = label(Conversation([Message("text", text)]), tokenizer)

    assert tokenizer.decode(row.input_ids) == f"Once upon a time{EOS}"
    assert row.labels == row.input_ids
    assert row.turns == row.labels.count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize("text", [f"Once{EOS} upon", f"{EOS}Once"])
def test_a_plain_text_that_holds_a_stop_token_is_refused(text: str, tokenizer: Any) -> None:
    assert refusal(Conversation([Message("text", text)]), tokenizer).startswith(
        "the text holds '<|im_end|>' before its end, which ends a text"
    )


def continuation(prompt: str, completion: str) -> Conversation:
    return Conversation(
        [Message("text", prompt, trained=False), Message("text", completion, trained=True)]
    )


def test_a_completion_goes_on_from_its_prompt(tokenizer: Any) -> None:
    row = label(continuation("The sky is", " blue."), tokenizer)

    assert tokenizer.decode(row.input_ids) == f"The sky is blue.{EOS}"
    assert trained_text(row, tokenizer) == f" blue.{EOS}"
    assert row.input_ids[: row.prompt_tokens] == tokenizer("The sky is")["input_ids"]
    assert row.turns == 1


def test_a_completion_has_the_tokens_that_a_tokenizer_puts_around_a_text() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = metaspace("chatml", "first", split=True)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )

    row = label(continuation("What is", " 1 + 1?"), tokenizer)

    assert row.input_ids == tokenizer("What is 1 + 1?")["input_ids"]
    assert row.input_ids[0] == 1
    assert row.labels[: row.prompt_tokens] == [IGNORED] * row.prompt_tokens
    assert trained_text(row, tokenizer).strip() == "1 + 1?</s>"


def test_a_completion_that_joins_its_prompts_last_token_is_refused(tokenizer: Any) -> None:
    assert refusal(continuation("This is ", "the end"), tokenizer).startswith(
        "the tokens of the prompt are others before its answer than alone"
    )


def test_many_rows_are_tokenized_as_each_alone(tokenizer: Any) -> None:
    bad = Conversation([ASKED, Message("assistant", f"a{EOS}b")])
    text = Conversation([Message("text", "Once upon a time")])
    rows = [SINGLE, bad, text, SEVERAL, SINGLE]

    found = tokenize_conversations(
        rows,
        tokenizer,
        max_length=LONG_ENOUGH,
        loss_on="completion",
        stop_ids=frozenset({tokenizer.eos_token_id}),
    )

    assert found[1] == UnusableRow(refusal(bad, tokenizer))
    assert found[::2] == [[label(row, tokenizer)] for row in rows[::2]]
    assert found[3] == [label(SEVERAL, tokenizer)]


def test_special_tokens_in_a_question_are_counted(tokenizer: Any) -> None:
    """The prompt's length is found by its last special token, which a text may hold too."""
    asked = Message("user", "What is <|im_start|>assistant\n<|im_start|>assistant\n?")
    conversation = Conversation([asked, SINGLE.messages[1]])

    row = label(conversation, tokenizer)

    prompt = tokenizer.apply_chat_template(
        [asked.to_template()], add_generation_prompt=True, return_dict=False
    )
    assert row.input_ids[: row.prompt_tokens] == prompt
    assert trained_text(row, tokenizer) == f"Two.{EOS}"


# --- exact tokens: a tokenizer whose every letter is a token -----------------------------------

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
X = IGNORED
USER, ASSISTANT = 3, 4
A, B, C, D = 5, 6, 7, 8


def letters(
    template: str = PLAIN, *, bos: str = "<s>", normalized: bool = False, around: str = ""
) -> Any:
    """A tokenizer of the letters a to d, its capitals as small ones; ``around`` as "<s> $A </s>"."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
    pieces = [*special, *"abcd", " ", ":"]
    bpe = Tokenizer(models.BPE({one: i for i, one in enumerate(pieces)}, [], unk_token="<unk>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.add_special_tokens([AddedToken(one, normalized=normalized) for one in special])
    if around:
        bpe.post_processor = TemplateProcessing(
            single=around, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=bos, eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def turns(*texts: str) -> Conversation:
    """A conversation of these texts, the user's and the assistant's by turns."""
    return Conversation(
        [Message(("user", "assistant")[number % 2], text) for number, text in enumerate(texts)]
    )


TWO = turns("ab", "cd", "b", "d")


def row_of(
    ids: Sequence[int], labels: Sequence[int], *, prompt: int = 0, answer: int = 0
) -> TokenizedRow:
    return TokenizedRow(list(ids), list(labels), 1, False, prompt, answer)  # type: ignore[arg-type]


@pytest.mark.parametrize("around", ["", "<s> $A </s>"])
def test_the_tokens_and_labels_of_two_turns(around: str) -> None:
    """What a tokenizer puts around a text is the chat template's to write."""
    row = label(TWO, letters(around=around))

    prompt = [USER, A, B, 2, ASSISTANT]
    assert row == TokenizedRow(
        input_ids=[*prompt, C, D, 2, USER, B, 2, ASSISTANT, D, 2],  # type: ignore[list-item]
        labels=[*[X] * 5, C, D, 2, *[X] * 4, D, 2],  # type: ignore[list-item]
        turns=2,
        truncated=False,
        prompt_tokens=5,
        answer=1,  # type: ignore[arg-type]
    )
    assert row.truncated is False


def test_a_message_that_is_trained_is_found_though_the_tokenizer_begins_every_text() -> None:
    first, *rest = TWO.messages
    told = Conversation([replace(first, trained=True), *rest])

    row = label(told, letters(around="<s> $A </s>"))

    assert row.labels == [X, A, B, X, X, C, D, 2, *[X] * 4, D, 2]


MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' %}:{% generation %}{{ m.content }}</s>{% endgeneration %}"
    "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize("around", ["", "<s> $A </s>"])
def test_the_tokens_that_generation_markers_leave_out_are_masked(around: str) -> None:
    row = label(turns("ab", "cd"), letters(MARKED, around=around))

    assert row.input_ids == [USER, A, B, 2, ASSISTANT, 10, C, D, 2]
    assert row.labels == [*[X] * 6, C, D, 2]


def test_generation_markers_leave_the_questions_of_everything_trained() -> None:
    row = label(TWO, letters(MARKED), loss_on="everything")

    first = [USER, A, B, 2, ASSISTANT, X, C, D, 2]
    assert row.labels == [*first, USER, B, 2, ASSISTANT, X, D, 2]


@pytest.mark.parametrize(
    ("number", "labels"),
    [
        (0, [X, A, B, X, X, X, C, D, 2, X, X, X, X, X, D, 2]),
        (2, [X, X, X, X, X, X, C, D, 2, X, B, X, X, X, D, 2]),
    ],
)
def test_generation_markers_leave_a_question_trained_that_says_so(
    number: int, labels: list[int]
) -> None:
    messages = [
        replace(one, trained=True) if i == number else one for i, one in enumerate(TWO.messages)
    ]

    assert label(Conversation(messages), letters(MARKED)).labels == labels


def test_an_answer_that_no_stop_token_ends_is_trained_to_its_end() -> None:
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )

    row = label(turns("ab", "cd"), letters(template))

    assert row.labels == [X, X, X, X, C, D]
    assert row.turns == 1


@pytest.mark.parametrize("texts", [("a", "b</S>c", "a", "b"), ("a", "b", "a", "b</S>c")])
def test_a_stop_token_that_only_the_tokenizer_reads_in_an_answer_is_refused(
    texts: tuple[str, ...],
) -> None:
    """Its text is no stop token's: the tokenizer makes it one."""
    tokenizer = letters(normalized=True)
    assert tokenizer("b</S>c")["input_ids"] == [B, 2, C]

    assert refusal(turns(*texts), tokenizer) == (
        "the answer's text holds '</s>', which ends a turn: "
        "the model would learn to stop in the middle"
    )


# --- prompts are encoded by their last part, in one call for all rows --------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of each call of the tokenizer."""
    made: list[list[str]] = []
    encode = tokenization._encode

    def listed(tokenizer: Any, texts: list[str]) -> Any:
        made.append(list(texts))
        return encode(tokenizer, texts)

    monkeypatch.setattr(tokenization, "_encode", listed)
    return made


@pytest.mark.parametrize("asked", ["a\n" * 200, "<|assistant|>a</s><|assistant|>"])
def test_one_call_encodes_rows_and_the_last_parts_of_their_prompts(
    asked: str, calls: list[list[str]]
) -> None:
    tokenizer = letters()
    conversation = turns(asked, "cd", "b", "d")

    row = label(conversation, tokenizer)

    whole = f"<|user|>{asked}</s><|assistant|>cd</s><|user|>b</s><|assistant|>d</s>"
    assert calls == [[whole, "<|assistant|>", "</s><|user|>b</s><|assistant|>"]]
    assert row.prompt_tokens == row.input_ids.index(C)


def test_the_last_part_begins_at_the_last_special_token_though_lines_follow(
    calls: list[list[str]],
) -> None:
    template = PLAIN.replace("<|assistant|>", "<|assistant|>a\nb\n").replace(
        "<|{{ m.role }}|>", "<|{{ m.role }}|>{{ 'a\nb\n' if m.role == 'assistant' }}"
    )

    row = label(turns("a", "cd"), letters(template))

    assert calls == [["<|user|>a</s><|assistant|>a\nb\ncd</s>", "<|assistant|>a\nb\n"]]
    assert row.labels == [*[X] * (len(row.labels) - 3), C, D, 2]


def test_a_special_token_far_from_a_prompts_end_is_not_looked_for(calls: list[list[str]]) -> None:
    header = "a" * 201
    template = PLAIN.replace("<|assistant|>", f"<|assistant|>{header}").replace(
        "<|{{ m.role }}|>",
        f"<|{{{{ m.role }}}}|>{{{{ '{header}' if m.role == 'assistant' }}}}",
    )

    row = label(turns("a", "cd"), letters(template))

    prompt = f"<|user|>a</s><|assistant|>{header}"
    assert calls == [[f"{prompt}cd</s>", prompt]]
    assert row.prompt_tokens == 4 + len(header)


def test_only_special_tokens_that_stand_alone_part_a_text() -> None:
    from tokenizers import AddedToken

    def added(text: str, **how: bool) -> AddedToken:
        return AddedToken(text, **{"special": True, "normalized": False, **how})

    tokens = [
        added("<s>"),
        added("<left>", lstrip=True),
        added("<right>", rstrip=True),
        added("<word>", single_word=True),
        added("<normalized>", normalized=True),
        added("<common>", special=False),
        added("<in>"),
        added("<<in>>"),
        added(""),
        added("</s>"),
    ]
    tokenizer: Any = SimpleNamespace(is_fast=True, added_tokens_decoder=dict(enumerate(tokens)))

    assert _parting_tokens(tokenizer) == {"<s>": 0, "<<in>>": 7, "</s>": 9}
    tokenizer.is_fast = False
    assert _parting_tokens(tokenizer) == {}


@pytest.mark.parametrize(
    ("ids", "count", "place"),
    [
        ([7, 8, 7, 7], 1, 0),
        ([7, 8, 7, 7], 2, 2),
        ([7, 8, 7, 7], 3, 3),
        ([7, 8, 7, 7], 4, None),
        ([7, 8, 9, 9], 1, 0),
        ([8], 1, None),
    ],
)
def test_where_a_token_is_for_the_nth_time(ids: list[Any], count: int, place: int | None) -> None:
    assert _nth(ids, 7, count) == place  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("alone", "ids", "told"),
    [
        ([A, B, C], [A, D, C], "at token 1 'd' 'c', alone 'b' 'c'. "),
        ([A, B], [A], "at token 1 nothing, alone 'b'. "),
        ([A], [A, B], "at token 1 'b', alone nothing. "),
        ([A, B, C, D], [D, C, B, A], "at token 0 'd' 'c' 'b', alone 'a' 'b' 'c'. "),
    ],
)
def test_the_first_tokens_that_differ_are_told(alone: list[Any], ids: list[Any], told: str) -> None:
    assert told in _different(letters(), alone, ids)


# --- plain texts, in exact tokens --------------------------------------------------------------


def texts(*parts: tuple[str, bool | None]) -> Conversation:
    return Conversation([Message("text", text, trained=trained) for text, trained in parts])


def test_a_text_may_begin_with_the_token_that_ends_it() -> None:
    """GPT-2's and others have one token for both."""
    tokenizer = letters(bos="</s>", around="</s> $A")

    assert label(texts(("ab", None)), tokenizer).labels == [2, A, B, 2]


@pytest.mark.parametrize(
    ("text", "around"), [("</s>ab", "</s> $A"), ("</s>ab", ""), ("ab</s></s>", ""), ("a</s>b", "")]
)
def test_a_text_that_holds_its_end_elsewhere_is_refused(text: str, around: str) -> None:
    tokenizer = letters(bos="</s>" if around else "<s>", around=around)

    assert refusal(texts((text, None)), tokenizer).startswith(
        "the text holds '</s>' before its end"
    )


def test_of_several_texts_those_are_trained_that_say_so() -> None:
    conversation = texts(("ab", False), ("c", True), ("da", False), ("b", None))

    row = label(conversation, letters())

    assert row.input_ids == [A, B, C, D, A, B, 2]
    assert row.labels == [X, X, C, X, X, B, 2]
    assert (row.prompt_tokens, row.turns, row.truncated) == (2, 1, False)
    assert row.truncated is False


@pytest.mark.parametrize(("length", "prompt"), [(1, 1), (4, 2), (5, 3), (126, 63), (300, 64)])
def test_the_beginning_of_a_text_stands_for_its_prompt(length: int, prompt: int) -> None:
    """Half of its tokens, with its end's, rounded down; no more than 64."""
    row = label(texts(("a" * length, None)), letters())

    assert len(row.input_ids) == length + 1
    assert row.prompt_tokens == prompt
    assert type(row.prompt_tokens) is int


def test_texts_of_which_none_is_to_be_trained_are_refused() -> None:
    assert refusal(texts(("ab", False), ("c", False)), letters()) == (
        "no token of it is trained: the data, or the chat template's markers, say so"
    )


# --- where a row is cut, in exact tokens -------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "length", "expected"),
    [
        # Whole, whatever its last token is.
        (row_of([A, B, C], [X, B, C], prompt=1), 3, row_of([A, B, C], [X, B, C], prompt=1)),
        (row_of([A, B, C], [X, B, X], prompt=1), 3, row_of([A, B, C], [X, B, X], prompt=1)),
        # Cut behind its one trained token.
        (
            row_of([A, B, C], [X, B, C], prompt=1),
            2,
            replace(row_of([A, B], [X, B], prompt=1), truncated=True),
        ),
        # Cut in a prompt that is trained too, which is then all of the row.
        (
            row_of([A, B, C, D], [A, B, C, D], prompt=3),
            2,
            replace(row_of([A, B], [A, B], prompt=2), truncated=True),
        ),
    ],
)
def test_where_a_row_is_cut(row: TokenizedRow, length: int, expected: TokenizedRow) -> None:
    assert _cut([row], length) == [expected]


@pytest.mark.parametrize(
    ("row", "length", "reason"),
    [
        (row_of([A, B, C], [X, X, X]), 9, "no token of it is trained"),
        (row_of([A, B], [A, X]), 9, "no token of it is trained"),  # nothing predicts the first
        (row_of([A], [A]), 9, "no token of it is trained"),
        (row_of([A, B], [X, B], prompt=1), 1, "its prompt fills model.max_seq_length (1 tokens)"),
        (row_of([A, B, C], [X, X, C], prompt=2), 2, "its prompt fills model.max_seq_length (2"),
    ],
)
def test_a_row_of_which_nothing_is_left_to_train_is_refused(
    row: TokenizedRow, length: int, reason: str
) -> None:
    with pytest.raises(UnusableRowError) as caught:
        _cut([row], length)

    assert str(caught.value).startswith(reason)


def test_what_a_template_does_is_counted_for_the_caller(forgetful: Any) -> None:
    notices: Counter[Notice] = Counter()

    tokenize_conversations(
        [SEVERAL],
        forgetful,
        max_length=LONG_ENOUGH,
        loss_on="completion",
        stop_ids=frozenset({forgetful.eos_token_id}),
        notices=notices,
    )

    assert list(notices.values()) == [1]
