"""A model's shape from its config.json."""

from __future__ import annotations

import pytest

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.planning.shape import shape_of

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256,
}  # fmt: skip


def test_the_parameters_of_llama_3_1_8b():
    shape = shape_of(LLAMA_8B)
    assert shape is not None
    assert shape.parameters == 8_030_261_248
    assert shape.adapter_parameters(LoraSettings(r=32)) == 83_886_080


@pytest.mark.parametrize("key", ["num_local_experts", "num_experts", "n_routed_experts"])
def test_a_mixture_of_experts_has_no_such_shape(key):
    assert shape_of({**LLAMA_8B, key: 8}) is None


def test_a_model_without_gated_layers_has_none():
    assert shape_of({"n_embd": 768, "n_layer": 12, "vocab_size": 50257}) is None


def test_the_text_part_of_a_larger_model_counts():
    assert shape_of({"text_config": LLAMA_8B, "tie_word_embeddings": False}) == shape_of(LLAMA_8B)


def test_it_is_what_the_tiny_model_has(tiny_model, make_config):
    from llm_engineering.model.finetuning.inject import describe_lora
    from llm_engineering.model.finetuning.load import describe_model
    from llm_engineering.planning.shape import read_shape

    config = make_config()
    shape = read_shape(config.model)
    lora = describe_lora(describe_model(config.model, dtype="float32"), config.lora)
    assert shape is not None
    assert shape.parameters == lora.model.parameters
    assert shape.adapter_parameters(config.lora) == lora.trainable_parameters
