"""The tokenizer of a run: the base model's, one chat template, and the tokens that end a turn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ConfigError, ModelError
from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids

CHATML = (
    Path(__file__).resolve().parents[3]
    / "llm_engineering"
    / "model"
    / "chat_templates"
    / "chatml.jinja"
)
PAD, START, END = 0, 1, 2  # <|endoftext|>, <|im_start|>, <|im_end|>


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model to break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def settings(folder: Path, **values: Any) -> ModelSettings:
    return ModelSettings(id=str(folder), **values)


def without(folder: Path, key: str) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))


def refusal(chosen: ModelSettings) -> str:
    with pytest.raises(ModelError) as caught:
        load_tokenizer(chosen)
    return str(caught.value)


def test_the_tiny_tokenizer_gives_every_text_back(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(settings(tiny_model))
    text = "def f(x):\n\treturn x  # Größe 日本 \U0001f600"

    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]

    assert tokenizer.decode(tokens) == text
    assert max(tokens) < len(tokenizer) == 600


def test_special_tokens_and_padding(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(settings(tiny_model))

    assert tokenizer.eos_token_id == END
    assert tokenizer.bos_token_id == START
    assert tokenizer.pad_token_id == PAD
    assert tokenizer.padding_side == "right"


def test_the_tokenizers_own_template_is_kept(tiny_model: Path) -> None:
    assert load_tokenizer(settings(tiny_model)).chat_template == CHATML.read_text()


def test_the_chosen_template_replaces_it(tiny_model: Path) -> None:
    template = load_tokenizer(settings(tiny_model, chat_template="alpaca")).chat_template

    assert "### Instruction:" in template
    assert "im_start" not in template


def test_a_template_can_be_given_to_a_tokenizer_that_has_none(model: Path) -> None:
    (model / "chat_template.jinja").unlink()

    assert (
        "### Instruction:" in load_tokenizer(settings(model, chat_template="alpaca")).chat_template
    )


def test_a_tokenizer_without_a_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()

    assert refusal(settings(model)) == (
        f"model.chat_template: the tokenizer of {model} has none; choose one, for example alpaca"
    )


def test_a_template_that_is_not_there(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="'vicuna' is neither one of alpaca, chatml nor"):
        load_tokenizer(settings(tiny_model, chat_template="vicuna"))


def test_a_tokenizer_without_an_eos_token(model: Path) -> None:
    without(model, "eos_token")

    assert refusal(settings(model)) == (
        f"model.id: the tokenizer of {model} has no EOS token; say which of its tokens ends an "
        "answer with model.eos_token, of '<|endoftext|>', '<|im_start|>', '<|im_end|>'"
    )


def test_the_eos_token_can_be_chosen(tiny_model: Path) -> None:
    chosen = settings(tiny_model, eos_token="<|endoftext|>")
    tokenizer = load_tokenizer(chosen)

    assert tokenizer.eos_token_id == PAD
    assert stop_token_ids(chosen, tokenizer) == {PAD, END}  # the latter as generation_config says


def test_an_eos_token_that_is_not_there(tiny_model: Path) -> None:
    assert refusal(settings(tiny_model, eos_token="<|eot_id|>")) == (
        f"model.eos_token: '<|eot_id|>' is no token of {tiny_model}, whose special tokens are "
        "'<|endoftext|>', '<|im_start|>', '<|im_end|>'; choose one of its vocabulary"
    )


def test_a_template_that_is_no_jinja(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{% for m in messages %}\n{% if %}")
    said = "is no Jinja template: line 2: Expected an expression, got 'end of statement block'"

    with pytest.raises(ConfigError) as caught:
        load_tokenizer(settings(model, chat_template=str(path)))
    assert str(caught.value) == f"model.chat_template: {path} {said}; choose another"

    (model / "chat_template.jinja").write_text(path.read_text())
    assert refusal(settings(model)) == (
        f"model.chat_template: that of the tokenizer of {model} {said}; choose another"
    )


def test_of_named_templates_the_default_is_used(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model / "additional_chat_templates"
    folder.mkdir()
    (folder / "tool_use.jinja").write_text("{{ tools }}")

    with caplog.at_level("INFO"):
        tokenizer = load_tokenizer(settings(model))

    assert tokenizer.chat_template == CHATML.read_text()
    assert "default is used, not tool_use" in caplog.text


def test_a_sentencepiece_model_alone_is_read(tmp_path: Path, tiny_model: Path) -> None:
    """As Llama 2's and Mistral's first; sentencepiece's own reader may not fit protobuf."""
    import sentencepiece

    text = tmp_path / "text.txt"
    text.write_text(CHATML.read_text() * 20 + "What is one and one? Two.\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    shutil.copy(tiny_model / "config.json", tmp_path / "config.json")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"})
    )

    tokenizer = load_tokenizer(settings(tmp_path, chat_template="alpaca"))

    assert tokenizer.convert_ids_to_tokens(tokenizer("one</s>")["input_ids"])[-1] == "</s>"
    assert tokenizer.decode(tokenizer("What is one?", add_special_tokens=False)["input_ids"]) == (
        "What is one?"
    )


def test_a_tokenizer_without_a_padding_token_pads_with_eos(model: Path) -> None:
    without(model, "pad_token")

    assert load_tokenizer(settings(model)).pad_token_id == END


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_tokenizer_that_is_missing_or_broken(text: str | None, model: Path) -> None:
    if text is None:
        (model / "tokenizer.json").unlink()
    else:
        (model / "tokenizer.json").write_text(text)

    message = refusal(settings(model))

    assert message.startswith(f"model.id: {model} has no usable tokenizer (")
    assert message.endswith(
        "); it needs a whole tokenizer.json, or the files that one is made from"
    )


def test_a_missing_model(tmp_path: Path) -> None:
    assert refusal(settings(tmp_path / "none")) == (
        f"model.id: no folder {tmp_path}/none, and not a Hub id owner/name"
    )


# --- the tokens that end a turn ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (None, {END}),
        ({}, {END}),
        ({"eos_token_id": None}, {END}),
        ({"eos_token_id": END}, {END}),
        ({"eos_token_id": PAD}, {PAD, END}),
        ({"eos_token_id": [PAD, 300]}, {PAD, END, 300}),
    ],
)
def test_generation_stops_at_eos_and_at_what_the_model_states(
    stated: dict[str, Any] | None, expected: set[int], model: Path
) -> None:
    path = model / "generation_config.json"
    if stated is None:
        path.unlink()
    else:
        path.write_text(json.dumps(stated))

    assert stop_token_ids(settings(model), load_tokenizer(settings(model))) == expected


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_generation_config_that_is_no_object(text: str, model: Path) -> None:
    path = model / "generation_config.json"
    tokenizer = load_tokenizer(settings(model))
    path.write_text(text)

    with pytest.raises(ModelError) as caught:
        stop_token_ids(settings(model), tokenizer)

    assert str(caught.value) == f"{path}: is not a JSON object; fetch the model anew"


def test_generation_stops_at_what_the_template_ends_an_answer_with(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As GLM-4.5, whose turns end with the role of the next."""
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ '<|im_start|>' if m.role == 'user' else '/' }}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}/{% endif %}"
    )
    tokenizer = load_tokenizer(settings(model))

    with caplog.at_level("INFO"):
        stops = stop_token_ids(settings(model), tokenizer)

    assert stops == {START, END}
    assert "the chat template ends answers with <|im_start|> too" in caplog.text
