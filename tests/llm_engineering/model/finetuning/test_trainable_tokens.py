"""Which rows train for tokens, and the tokens for which there is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import LoraError
from llm_engineering.model import live
from llm_engineering.model.finetuning import described
from llm_engineering.model.finetuning.inject import describe_lora
from llm_engineering.model.finetuning.load import (
    describe_model,
    live_base_model,
    load_model,
    meta_model,
)
from llm_engineering.model.finetuning.preflight import check_adapter
from llm_engineering.model.finetuning.trainable_tokens import token_rows


@pytest.fixture
def changed(tiny_model: Path, tmp_path: Path) -> Any:
    """A copy of the tiny model whose config.json says something else."""

    def make(**config: Any) -> Path:
        folder = shutil.copytree(tiny_model, tmp_path / "changed")
        values = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(values))
        return folder

    return make


def rows(folder: Path, *tokens: str) -> dict[str, tuple[int, ...]]:
    settings = ModelSettings(id=str(folder), max_seq_length=128)
    return token_rows(meta_model(settings), settings, tokens)


def test_a_tied_output_layer_has_the_rows_of_the_embeddings(tiny_model: Path, changed: Any) -> None:
    both = rows(tiny_model, "<|im_end|>", "<|im_start|>")
    assert both == {"model.embed_tokens": (2, 1), "lm_head": (2, 1)}
    assert rows(changed(tie_word_embeddings=True), "<|im_end|>") == {"model.embed_tokens": (2,)}


def test_new_tokens_take_spare_rows_in_their_order(changed: Any) -> None:
    padded = changed(vocab_size=602)
    assert rows(padded, "<b>", "<|im_end|>", "<a>")["lm_head"] == (600, 2, 601)
    with pytest.raises(
        LoraError, match=r"<a> would be token 602, and .* have 602 rows, none to sp"
    ):
        rows(padded, "<c>", "<b>", "<a>")


def test_where_no_row_is_spare_a_reserved_token_is_named_and_will_do(
    tiny_model: Path, tmp_path: Path, make_config: Any
) -> None:
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path / "reserved")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    last = tokenizer["added_tokens"][-1] | {"id": 599, "content": "<|reserved|>"}
    vocabulary = tokenizer["model"]["vocab"]
    gone = next(token for token, id_ in vocabulary.items() if id_ == 599)
    del vocabulary[gone]
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = [one for one in merges if "".join(one) != gone]
    vocabulary["<|reserved|>"] = 599
    tokenizer["added_tokens"].append(last)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|reserved|>") == 599

    def config(token: str) -> Any:
        return make_config({"model.id": str(folder), "lora.trainable_tokens": [token]})

    with pytest.raises(LoraError) as error:
        check_adapter(config("<tool>"))  # before anything is prepared
    assert str(error.value).startswith("lora.trainable_tokens: <tool> would be token 600, and the")
    advised = str(error.value).rpartition(" as ")[2]
    assert advised == "<|reserved|>"
    assert check_adapter(config(advised)).token_rows["lm_head"] == (599,)


def test_an_output_layer_with_a_bias_is_refused(tiny_model: Path, monkeypatch: Any) -> None:
    import torch

    settings = ModelSettings(id=str(tiny_model), max_seq_length=128)
    model = meta_model(settings)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(600, device="meta"))
    with pytest.raises(LoraError, match="has a bias, which PEFT leaves out"):
        token_rows(model, settings, ["<|im_end|>"])


@pytest.mark.parametrize("tied", [False, True])
def test_a_host_without_pytorch_tells_the_same(
    tied: bool, changed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = changed(tie_word_embeddings=tied)
    settings = ModelSettings(id=str(folder), max_seq_length=128)
    lora = LoraSettings(r=4, trainable_tokens=["<|im_start|>", "<|im_end|>"])
    model = describe_model(settings, dtype="float32", tokens=lora.trainable_tokens)
    theirs = describe_lora(model, lora)
    plain = describe_lora(model, LoraSettings(r=4))
    extra = 2 * 64 * (1 if tied else 2)
    assert theirs.trainable_parameters == plain.trainable_parameters + extra
    monkeypatch.setattr(described, "describe_lora", lambda *_: pytest.fail("asked PyTorch"))
    ours = described.describe_launched_lora(
        described.describe_launched_model(settings, dtype="float32", tokens=lora.trainable_tokens),
        lora,
    )
    assert ours == theirs
    beyond = lora.model_copy(update={"trainable_tokens": ["<new>"]})
    with pytest.raises(LoraError, match=r"<new> would be token 600"):
        described.describe_launched_lora(model, beyond)


def test_a_model_is_built_again_with_the_tokens_and_the_template_that_it_had(
    changed: Any, make_config: Any
) -> None:
    folder = changed(vocab_size=600)
    (folder / "chat_template.jinja").unlink()  # it has none of its own
    config = make_config({"model.id": str(folder), "model.chat_template": "chatml"})
    recipe = load_model(config.model, ["<|im_end|>", "<new>"])
    live.release()
    again = live_base_model(recipe).tokenizer
    assert again.convert_tokens_to_ids("<new>") == 600
    assert again.chat_template == recipe.chat_template
    live.release()
