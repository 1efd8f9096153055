"""What a launcher without PyTorch knows of a model, against its modules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.planning.config_shape import shape_of_config

# As on the Hub: Llama-3.2-1B, Mistral-7B, Qwen2.5-7B, Qwen3-0.6B.
CONFIGS: list[dict[str, Any]] = [
    {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "head_dim": 64,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "tie_word_embeddings": True,
    },
    {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 32768,
    },
    {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "vocab_size": 152064, "tie_word_embeddings": False,
    },
    {
        "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128,
        "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "vocab_size": 151936, "tie_word_embeddings": True,
    },
]  # fmt: skip
LORA = [
    {"r": 16},
    {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
    {"trainable_tokens": ["<|im_start|>", "<new>"]},
]
NAMES = ["llama", "mistral", "qwen2", "qwen3"]


@pytest.mark.parametrize("lora", LORA, ids=["all", "dora", "tokens"])
@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_it_is_what_the_modules_say(
    config: dict[str, Any], lora: dict[str, Any], tmp_path: Path, tiny_model: Path
) -> None:
    from llm_engineering.model.finetuning.trained_shape import trained_shape

    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, tmp_path)
    settings = LoraSettings.model_validate(lora)

    assert shape_of_config(config, settings) == trained_shape(
        ModelSettings(id=str(tmp_path)), settings
    )


@pytest.mark.parametrize(
    ("changed", "lora"),
    [
        ({"model_type": "phi3"}, {}),
        ({"attention_bias": True}, {}),
        ({"hidden_size": None}, {}),
        ({}, {"rank_pattern": {"down_proj": 64}}),
        ({}, {"bias": "all"}),
        ({}, {"target_modules": ["qkv_proj"]}),
    ],
)
def test_it_says_nothing_where_it_is_not_exact(
    changed: dict[str, Any], lora: dict[str, Any]
) -> None:
    settings = LoraSettings.model_validate(lora)
    assert shape_of_config({**CONFIGS[0], **changed}, settings) is None
