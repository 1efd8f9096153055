"""Workloads of known models, from their configuration alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.planning.config_shape import shape_of_config
from llm_engineering.planning.workload import Workload

MODELS: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "Llama-3.2-1B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "Llama-3-70B, 48 layers": {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
        "num_hidden_layers": 48, "num_attention_heads": 64, "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
    "SmolLM2-135M": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "vocab_size": 49152, "tie_word_embeddings": True,
    },
}  # fmt: skip

MakeWork = Callable[..., Workload]


@pytest.fixture
def work() -> MakeWork:
    """``work(model, row=..., lora={...}, **train)``: a workload in bfloat16 on full rows."""

    def make(
        model: str = "Llama-3.1-8B",
        *,
        quantisation: str = "none",
        row: int = 2048,
        batch_size: int = 1,
        dtype: str = "bfloat16",
        lora: Mapping[str, Any] | None = None,
        **train: Any,
    ) -> Workload:
        settings = LoraSettings.model_validate(lora or {})
        shape = shape_of_config(MODELS[model], settings)
        assert shape is not None
        return Workload.model_validate(
            {
                "shape": shape.model, "adapter": shape.adapter, "dtype": dtype,
                "quantisation": quantisation, "lora": settings,
                "train": {"optimizer": "adamw_8bit", **train},
                "evaluate": {"batch_size": batch_size}, "longest_row": row, "mean_row": row,
            }
        )  # fmt: skip

    return make
