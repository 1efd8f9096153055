"""Shapes as the modules say, for every family alike."""

from __future__ import annotations

from typing import Any

import pytest

from llm_engineering.training_stack import import_unsloth

TINY = {
    "vocab_size": 640, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {},
    "Qwen2": {},
    "Qwen3": {},
    "Gemma2": {},
    "Gemma3Text": {},
    "Phi3": {"partial_rotary_factor": 1.0},
    "Starcoder2": {},
    "Lfm2": {"layer_types": ["conv", "full_attention"]},
    "FalconH1": {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16},
    "Zamba2": {"num_hidden_layers": 4, "mamba_headdim": 16, "n_mamba_heads": 8,
               "mamba_d_state": 16, "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"]},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3Moe": {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "GptOss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "Ernie4_5_Moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32,
                     "moe_num_shared_experts": 1, "moe_layer_start_index": 1},
}  # fmt: skip


def build(family: str) -> Any:
    import_unsloth()
    import torch
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**TINY, **FAMILIES[family]})
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_is_counted_once(family: str) -> None:
    from llm_engineering.planning.shape import shape_of_modules

    model = build(family)
    shape = shape_of_modules(model)

    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.depth == model.config.num_hidden_layers
    layers = sum(layer.count * layer.parameters for layer in shape.layers)
    assert 0 < shape.linear_parameters <= layers < shape.parameters
    assert all(layer.kept > 0 and layer.inner > 0 for layer in shape.layers)
    assert shape.is_mixture == (
        family in ("Mixtral", "Qwen3Moe", "GptOss", "Olmoe", "Ernie4_5_Moe")
    )


@pytest.mark.parametrize(
    ("family", "experts", "picked", "layers"),
    [
        ("Mixtral", 4, 2, 2),
        ("Qwen3Moe", 8, 2, 2),
        ("Olmoe", 4, 2, 2),
        ("GptOss", 4, 2, 2),
        ("Ernie4_5_Moe", 4, 2, 1),
    ],
)
def test_a_token_goes_through_the_experts_that_its_router_picks(
    family: str, experts: int, picked: int, layers: int
) -> None:
    from llm_engineering.planning.shape import shape_of_modules

    model = build(family)
    inside = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    shape = shape_of_modules(model)

    assert sum(layer.count for layer in shape.layers if layer.expert_parameters) == layers
    idle = shape.parameters - shape.active_parameters
    assert idle == inside - inside * picked // experts
    # Of a feed-forward part of 160 (32 where experts are narrower) each picked one.
    width = 32 if family in ("Qwen3Moe", "Ernie4_5_Moe") else 160
    assert max(layer.inner for layer in shape.layers if layer.expert_parameters) >= picked * width


@pytest.mark.parametrize(
    ("family", "kept"),
    [
        # Inputs of two norms, of qkv and of gate and up (64 each), queries 64, keys and values 32,
        # the attention's output 64, gate and up 160 each.
        ("Llama", 4 * 64 + 64 + 2 * 32 + 64 + 2 * 160),
        ("Phi3", 4 * 64 + 64 + 2 * 32 + 64 + 2 * 160),  # fused, the same
        ("Qwen3", 4 * 64 + 64 + 2 * 32 + 64 + 2 * 160 + 64 + 32),  # norms of queries and keys
        ("Gemma3Text", 6 * 64 + 64 + 2 * 32 + 64 + 2 * 160 + 64 + 32),  # and two norms more
        ("Starcoder2", 4 * 64 + 64 + 2 * 32 + 64 + 160),  # no gate
    ],
)
def test_what_a_token_keeps_of_a_layer(family: str, kept: int) -> None:
    from llm_engineering.planning.shape import shape_of_modules

    shape = shape_of_modules(build(family))

    (layer,) = shape.layers
    assert (layer.kept, layer.attention, layer.inner) == (kept, 64, 160)
