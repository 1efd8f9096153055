"""The adapter's shape is what PEFT injects, not what a formula says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import LoraError, ModelError
from llm_engineering.model.finetuning.inject import inject_lora
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.model.finetuning.trained_shape import trained_shape

PHI_3_MINI = {
    "model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064, "pad_token_id": 32000,
}  # fmt: skip


@pytest.mark.parametrize(
    "lora",
    [
        {"r": 8},
        {"rank_pattern": {"down_proj": 24}, "alpha_pattern": {"q_proj": 4}},
        {"use_dora": True, "target_modules": ["q_proj", "down_proj"]},
        {"target_modules": "all-linear", "bias": "lora_only"},
    ],
    ids=["plain", "patterns", "dora", "all-linear"],
)
def test_it_is_that_of_the_adapter_in_the_loaded_model(
    lora: dict[str, Any], make_config: Any
) -> None:
    config = make_config({f"lora.{key}": value for key, value in lora.items()})

    shape = trained_shape(config.model, config.lora)
    injected = inject_lora(load_model(config.model), config.lora)

    assert shape.model.parameters == injected.model.parameters
    assert shape.adapter.parameters == injected.trainable_parameters
    assert shape.adapter.parameters == sum(one.adapter_parameters for one in injected.matched)


def folder_of(config: dict[str, Any], tmp_path: Path) -> ModelSettings:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return ModelSettings(id=str(tmp_path))


def test_fused_projections_and_ranks_of_their_own_count(tmp_path: Path) -> None:
    """Phi-3-mini: 17.8 million were planned and 50.3 million are there, since names are fused."""
    model = folder_of(PHI_3_MINI, tmp_path)
    names = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    per_layer = (3072 + 9216) + (3072 + 3072) + (3072 + 16384) + (8192 + 3072)

    plain = trained_shape(model, LoraSettings(r=32, target_modules=names))
    wider = trained_shape(
        model, LoraSettings(r=32, target_modules=names, rank_pattern={"down_proj": 256})
    )

    assert plain.model.parameters == 3_821_079_552
    assert plain.adapter.parameters == 32 * 32 * per_layer == 50_331_648
    assert wider.adapter.parameters - plain.adapter.parameters == 32 * 224 * (8192 + 3072)
    assert plain.adapter.is_everywhere


def test_a_target_that_is_not_there_is_refused_without_weights(tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="qkv_proj"):
        trained_shape(folder_of(PHI_3_MINI, tmp_path), LoraSettings(target_modules=["query"]))


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no folder"):
        trained_shape(ModelSettings(id=str(tmp_path / "missing")), LoraSettings())
