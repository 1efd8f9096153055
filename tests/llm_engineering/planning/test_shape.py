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


@pytest.mark.parametrize(
    ("family", "picked", "width", "experts"),
    [("Mixtral", 2, 160, 4), ("Qwen3Moe", 2, 32, 8), ("Olmoe", 2, 160, 4)],
)
def test_what_a_token_keeps_in_the_experts_that_it_goes_to(
    family: str, picked: int, width: int, experts: int
) -> None:
    """What goes into each, gate, up and their product; three matrices are an expert."""
    from llm_engineering.planning.shape import shape_of_modules

    (layer,) = shape_of_modules(build(family)).layers

    assert layer.count == 2
    assert layer.kept_by_experts == picked * (64 + 3 * width)
    assert layer.inner == picked * width
    assert layer.expert_parameters == experts * 3 * 64 * width
    assert layer.idle_parameters == (experts - picked) * 3 * 64 * width
    assert layer.kept_in_tiles == 0


def test_experts_in_one_layer_and_a_dense_block_in_another_are_told_apart() -> None:
    from llm_engineering.planning.shape import shape_of_modules

    dense, mixed = shape_of_modules(build("Ernie4_5_Moe")).layers

    assert (dense.count, mixed.count) == (1, 1)
    assert (dense.kept_in_tiles, dense.inner, dense.expert_parameters) == (2 * 160, 160, 0)
    assert mixed.kept_in_tiles == 0
    assert mixed.inner == (2 + 1) * 32  # two picked, and the one that all tokens go to


def test_a_model_is_of_its_family_and_as_wide_as_its_output_layer() -> None:
    import torch
    import transformers

    from llm_engineering.planning.shape import shape_of_modules

    model = build("Llama")
    shape = shape_of_modules(model)
    assert (shape.family, shape.hidden, shape.vocabulary) == ("llama", 64, 640)
    assert shape.has_tiles
    (layer,) = shape.layers
    assert layer.kept_in_tiles == 2 * 160
    model.lm_head = torch.nn.Linear(64, 704, bias=False, device="meta")  # padded
    assert shape_of_modules(model).vocabulary == 704
    with torch.device("meta"):
        headless = transformers.AutoModel.from_config(model.config)
    assert shape_of_modules(headless).vocabulary == 640


def test_the_decoders_layers_are_the_largest_list() -> None:
    """Not those of a tower for images, nor the experts within a layer."""
    from torch.nn import Linear, Module, ModuleList

    from llm_engineering.errors import ModelError
    from llm_engineering.planning.shape import _decoder_layers

    model = Module()
    model.vision = ModuleList(Linear(2, 2) for _ in range(9))
    model.language = ModuleList(ModuleList([Linear(8, 8)]) for _ in range(3))
    model.audio = ModuleList([Linear(3, 3)])

    assert _decoder_layers(model) is model.language
    with pytest.raises(ModelError, match=r"model\.id: Linear has no list of layers"):
        _decoder_layers(Linear(2, 2))


def test_the_router_says_how_many_experts_a_token_goes_to() -> None:
    from torch.nn import Module

    from llm_engineering.planning.shape import _experts_picked

    for key in ("top_k", "num_experts_per_tok", "experts_per_token"):
        layer = Module()
        layer.router = Module()
        setattr(layer.router, key, 3)
        assert _experts_picked(layer) == 3
    assert _experts_picked(Module()) == 1


def test_a_dense_block_goes_through_in_tiles_and_one_of_experts_does_not() -> None:
    import torch
    from torch.nn import Linear, Module, ModuleList, Parameter

    from llm_engineering.planning.shape import is_feed_forward

    dense = Module()
    dense.up_proj = Linear(2, 2)
    for name in ("mlp", "model.layers.0.mlp", "layer.feed_forward", "ffn", "shared_mlp"):
        assert is_feed_forward(name, dense)
    assert not is_feed_forward("model.layers.0.self_attn", dense)
    sparse, stacked = Module(), Module()
    sparse.inside = Module()
    sparse.inside.experts = ModuleList([Linear(2, 2)])
    stacked.weight = Parameter(torch.zeros(2, 2, 2))
    assert not is_feed_forward("mlp", sparse)
    assert not is_feed_forward("mlp", stacked)


@pytest.mark.parametrize(("parameters", "everywhere"), [(60, True), (61, False)])
def test_an_adapters_shape_is_that_of_what_it_is_on(parameters: int, everywhere: bool) -> None:
    from llm_engineering.model.recipes import MatchedTarget
    from llm_engineering.planning.shape import AdapterShape, LayerShape, ModelShape

    layer = LayerShape(
        count=1, parameters=99, linear_parameters=parameters, kept=1, attention=1, inner=1
    )
    shape = ModelShape(family="f", hidden=2, vocabulary=3, parameters=99, layers=(layer,))
    matched = [
        MatchedTarget(name="q_proj", modules=2, d_in=5, d_out=6, adapter_parameters=1),
        MatchedTarget(name="experts", modules=3, experts=4, d_in=7, d_out=8, adapter_parameters=1),
    ]

    assert AdapterShape.of(matched, 17, shape) == AdapterShape(
        parameters=17,
        outputs=2 * 6 + 3 * 8,
        weights=2 * 5 * 6 + 3 * 4 * 7 * 8,
        is_everywhere=everywhere,  # of the linear modules; experts are none
    )


def test_a_shape_is_told_in_billions() -> None:
    from llm_engineering.planning.shape import LayerShape, ModelShape

    values = {"parameters": 9, "linear_parameters": 9, "kept": 1, "attention": 1, "inner": 1}
    dense = LayerShape(count=2, **values)
    mixed = LayerShape(count=2, expert_parameters=9, idle_parameters=600_000_000, **values)
    numbers: dict[str, Any] = {
        "family": "f", "hidden": 2, "vocabulary": 3, "parameters": 3_050_000_000,
    }  # fmt: skip

    assert str(ModelShape(layers=(dense,), **numbers)) == "3.05B parameters"
    assert str(ModelShape(layers=(mixed,), **numbers)) == "3.05B parameters, 1.85B active"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("norm", 8),
        ("block.self_attn.q_norm", 6),
        ("block.self_attn.k_layernorm", 4),
        ("block.self_attn.head_norm", 2),
        ("q_norm", 2),
    ],
)
def test_a_norm_over_each_head_keeps_all_heads(name: str, kept: int) -> None:
    """As wide as what it norms comes out of; its own width where no projection is named so."""
    from torch import nn

    from llm_engineering.planning.shape import _normed

    attention = nn.Module()
    attention.q_proj, attention.k_proj = nn.Linear(8, 6), nn.Linear(8, 4)
    attention.q_norm = attention.k_layernorm = attention.head_norm = nn.LayerNorm(2)
    layer, block = nn.Module(), nn.Module()
    layer.block, block.self_attn = block, attention
    layer.norm, layer.q_norm = nn.LayerNorm(8), nn.LayerNorm(2)

    assert _normed(name, layer.get_submodule(name), layer, hidden=8) == kept


def test_a_norm_without_a_weight_keeps_the_stream() -> None:
    from torch import nn

    from llm_engineering.planning.shape import _normed

    assert _normed("norm", nn.Module(), nn.Module(), hidden=8) == 8


def test_a_list_of_experts_is_counted_by_the_smallest_projection_of_one() -> None:
    from torch import nn

    from llm_engineering.planning.shape import _experts, _in_experts

    layer, block = nn.Module(), nn.Module()
    block.experts = nn.ModuleList([nn.Sequential(nn.Linear(8, 6), nn.Linear(3, 8))])
    layer.mlp = block
    layer.blocks = nn.ModuleList([nn.Linear(8, 6)])

    assert _experts("mlp.experts", block.experts) == 24
    assert _experts("blocks", layer.blocks) is None
    assert _experts("mlp.experts", nn.ModuleList([nn.Identity()])) is None
    inside = {name for name, _ in layer.named_modules() if _in_experts(name, layer)}
    assert inside == {"mlp.experts.0", "mlp.experts.0.0", "mlp.experts.0.1"}
