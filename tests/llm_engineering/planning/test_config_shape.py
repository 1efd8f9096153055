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

# As on the Hub: Llama-3.2-1B, Mistral-7B, Qwen2.5-7B, Qwen3-0.6B;
# Qwen3-30B-A3B, Qwen1.5-MoE-A2.7B, OLMoE-1B-7B, Mixtral-8x7B with 3 of their layers, which are alike:
# PEFT takes seconds for all of them.
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
    {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "head_dim": 128,
        "num_hidden_layers": 3, "num_attention_heads": 32, "num_key_value_heads": 4,
        "vocab_size": 151936, "tie_word_embeddings": False, "decoder_sparse_step": 1,
        "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
        "mlp_only_layers": [],
    },
    {
        "model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 3, "num_attention_heads": 16, "num_key_value_heads": 16,
        "vocab_size": 151936, "tie_word_embeddings": False, "decoder_sparse_step": 1,
        "num_experts": 60, "num_experts_per_tok": 4, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
    },
    {
        "model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024,
        "num_hidden_layers": 3, "num_attention_heads": 16, "num_key_value_heads": 16,
        "vocab_size": 50304, "num_experts": 64, "num_experts_per_tok": 8,
    },
    {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 3, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
]  # fmt: skip
LORA = [
    {"r": 16},
    {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
    {"target_modules": "all-linear"},
    {"trainable_tokens": ["<|im_start|>", "<new>"]},
]
NAMES = [config["model_type"] for config in CONFIGS]
MIXTURE = NAMES.index("qwen3_moe")


@pytest.mark.parametrize("lora", LORA, ids=["auto", "dora", "all-linear", "tokens"])
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


@pytest.mark.parametrize("name", ["experts.gate_up_proj", "down_proj"])
def test_of_experts_by_name_it_says_what_the_modules_say(name: str, tmp_path: Path) -> None:
    from llm_engineering.model.finetuning.trained_shape import trained_shape

    config = CONFIGS[MIXTURE]
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = LoraSettings(r=8, target_modules=["q_proj", name])
    assert shape_of_config(config, settings) == trained_shape(
        ModelSettings(id=str(tmp_path)), settings
    )


@pytest.mark.parametrize(
    ("changed", "lora"),
    [
        ({"mlp_only_layers": [0]}, {}),
        ({"decoder_sparse_step": 2}, {}),
        ({"num_experts_per_tok": None}, {}),
        ({"num_experts": None}, {}),
        ({"model_type": "glm4_moe"}, {}),
        ({}, {"target_modules": ["gate_proj"]}),
    ],
)
def test_of_a_mixture_it_says_nothing_where_it_is_not_exact(
    changed: dict[str, Any], lora: dict[str, Any]
) -> None:
    settings = LoraSettings.model_validate(lora)
    assert shape_of_config(CONFIGS[MIXTURE], LoraSettings()) is not None
    assert shape_of_config({**CONFIGS[MIXTURE], **changed}, settings) is None


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
