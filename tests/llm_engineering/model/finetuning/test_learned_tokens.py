"""A chat template whose tokens the base model never learned is refused before a weight is loaded."""

import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from llm_engineering.errors import ModelError
from llm_engineering.model.finetuning import load
from llm_engineering.model.finetuning.preflight import check_adapter
from llm_engineering.model.tokenizer import load_tokenizer

START = "<|im_start|>"


@pytest.fixture
def blanked(tiny_model, tmp_path, make_config):
    """A configuration whose model has a row of zeros for a token; by default it is not bos."""

    def blanked(token, *, bos=None, **overrides):
        folder = shutil.copytree(tiny_model, tmp_path / "blank")
        config = make_config({"model.id": str(folder), **overrides})
        tokenizer = load_tokenizer(config.model)
        tokenizer.bos_token = bos
        tokenizer.save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        weights["model.embed_tokens.weight"][tokenizer.convert_tokens_to_ids(token)] = 0
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return config

    return blanked


def test_it_names_the_token_and_what_to_choose(blanked, monkeypatch):
    monkeypatch.setattr(load, "backend", None)  # nothing is loaded
    with pytest.raises(ModelError, match=r"writes <\|im_start\|>, which .* never learned") as error:
        load.load_model(blanked(START).model)
    assert "or model.chat_template: alpaca, which" in str(error.value)


def test_the_advice_works(blanked):
    config = blanked(START, **{"model.chat_template": "alpaca"})
    assert load.load_model(config.model).parameters > 0


def test_so_does_training_them(blanked, monkeypatch):
    config = blanked(START, **{"model.chat_template": None})
    with pytest.raises(ModelError) as error:
        check_adapter(config)  # before anything is prepared
    key, _, value = str(error.value).partition("Set ")[2].partition(" to train")[0].partition(": ")
    assert (key, value) == ("lora.trainable_tokens", '["<|im_start|>"]')
    lora = config.lora.model_copy(update={"trainable_tokens": yaml.safe_load(value)})
    check_adapter(config.model_copy(update={"lora": lora}))
    recipe = load.load_model(config.model, lora.trainable_tokens)
    assert recipe.trainable_tokens == (START,)


def test_what_begins_a_text_may_be_blank(blanked):
    assert load.load_model(blanked(START, bos=START).model).parameters > 0


def test_a_file_of_zeros_has_learned_nothing_and_is_let_pass(blanked):
    config = blanked(START)
    weights = Path(config.model.id) / "model.safetensors"
    zeros = {name: tensor * 0 for name, tensor in load_file(weights).items()}
    save_file(zeros, weights, metadata={"format": "pt"})
    assert load.load_model(config.model).parameters > 0
