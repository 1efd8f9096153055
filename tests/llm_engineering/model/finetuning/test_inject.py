"""LoRA injection, checked in numbers against the formula h = W x + scaling * B A x."""

import math

import pytest
import torch

from llm_engineering.configuration.lora import HANDBOOK_TARGET_MODULES, LoraSettings
from llm_engineering.errors import LoraError
from llm_engineering.model import live
from llm_engineering.model.finetuning.inject import describe_lora, inject_lora, live_lora_model
from llm_engineering.model.finetuning.load import live_base_model, load_model

RANK, ALPHA = 8, 24
IDS = torch.arange(5, 25).unsqueeze(0)
# Shapes of the tiny Llama: hidden 64, MLP 160, 2 layers, 4 heads and 2 key-value heads of 16.
SHAPES = {
    "q_proj": (64, 64),
    "k_proj": (64, 32),
    "v_proj": (64, 32),
    "o_proj": (64, 64),
    "gate_proj": (64, 160),
    "up_proj": (64, 160),
    "down_proj": (160, 64),
}
LAYERS = 2


def settings(**changes):
    return LoraSettings(**{"r": RANK, "lora_alpha": ALPHA, **changes})


@pytest.fixture
def base(make_config):
    return load_model(make_config().model)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS.to(model.device)).logits.clone()


def randomise_b(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def test_output_is_unchanged_right_after_injection(base):
    before = logits(live_base_model(base).model.eval())
    lora = inject_lora(base, settings())
    after = logits(live_lora_model(lora).model.eval())
    assert torch.equal(before, after)


def test_report_states_matches_shapes_and_parameters(base):
    lora = inject_lora(base, settings())
    assert {t.name: (t.d_in, t.d_out) for t in lora.matched} == SHAPES
    assert all(target.modules == LAYERS for target in lora.matched)
    expected = {name: LAYERS * RANK * (d_in + d_out) for name, (d_in, d_out) in SHAPES.items()}
    assert {t.name: t.adapter_parameters for t in lora.matched} == expected
    assert lora.trainable_parameters == sum(expected.values())
    assert lora.total_parameters == base.parameters + lora.trainable_parameters
    assert lora.trainable_share == pytest.approx(
        sum(expected.values()) / (base.parameters + sum(expected.values()))
    )


def test_only_adapter_weights_are_trainable(base):
    lora = inject_lora(base, settings())
    model = live_lora_model(lora).model
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trainable) == 2 * LAYERS * len(SHAPES)
    assert all("lora_A" in name or "lora_B" in name for name in trainable)


def test_projections_are_replaced_in_place_and_the_base_weights_are_not_copied(base):
    before = live_base_model(base).model
    projection = before.model.layers[0].self_attn.q_proj
    weight = projection.weight
    lora = inject_lora(base, settings())
    wrapped = live_lora_model(lora).model
    assert wrapped.get_base_model() is before
    replaced = before.model.layers[0].self_attn.q_proj
    assert replaced is not projection
    assert replaced.base_layer is projection
    assert replaced.base_layer.weight.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize(
    ("use_rslora", "expected"), [(False, ALPHA / RANK), (True, ALPHA / math.sqrt(RANK))]
)
def test_scaling(base, use_rslora, expected):
    lora = inject_lora(base, settings(use_rslora=use_rslora))
    assert lora.scaling == pytest.approx(expected)
    # The factor that acts, not only the one that is stated:
    layer = live_lora_model(lora).model.get_base_model().model.layers[0].mlp.down_proj
    randomise_b(layer)
    x = torch.randn(3, 160, generator=torch.Generator().manual_seed(2))
    x = x.to(layer.base_layer.weight.device)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        added = layer(x) - layer.base_layer(x)
        assert torch.allclose(added, expected * x @ a.T @ b.T, atol=1e-5)


def test_handbook_defaults_scale_by_one(base):
    lora = inject_lora(base, LoraSettings())
    assert (lora.settings.r, lora.settings.lora_alpha, lora.settings.lora_dropout) == (32, 32, 0)
    assert lora.settings.target_modules == "auto"
    assert lora.targets.modules == HANDBOOK_TARGET_MODULES
    assert set(HANDBOOK_TARGET_MODULES) == set(SHAPES)
    assert lora.scaling == 1.0


def test_merged_weight_is_base_plus_scaled_product(base):
    lora = inject_lora(base, settings())
    model = live_lora_model(lora).model
    randomise_b(model)
    layer = model.get_base_model().model.layers[1].self_attn.v_proj
    weight = layer.base_layer.weight.detach().clone()
    a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
    expected = weight + (ALPHA / RANK) * b @ a
    unmerged = logits(model.eval())
    merged = model.merge_and_unload()
    assert torch.allclose(merged.model.layers[1].self_attn.v_proj.weight, expected, atol=1e-6)
    assert torch.allclose(logits(merged), unmerged, atol=1e-4)
    live.release()


def test_all_linear_takes_every_projection_and_leaves_the_output_head(base):
    lora = inject_lora(base, settings(target_modules="all-linear"))
    assert {target.name for target in lora.matched} == set(SHAPES)


def test_dora_adds_one_magnitude_for_each_output_feature(base):
    lora = inject_lora(
        base,
        settings(use_dora=True, target_modules=["q_proj"]),
    )
    assert lora.trainable_parameters == LAYERS * (RANK * (64 + 64) + 64)


def test_a_target_that_matches_nothing_lists_what_exists(base):
    with pytest.raises(LoraError) as error:
        inject_lora(base, settings(target_modules=["q_proj", "query"]))
    assert str(error.value) == (
        "lora.target_modules: query matches no linear module of this model; it has q_proj (2), "
        "k_proj (2), v_proj (2), o_proj (2), gate_proj (2), up_proj (2), down_proj (2). Set "
        "lora.target_modules: auto to take what it has"
    )


def test_lm_head_is_refused(base):
    with pytest.raises(LoraError, match=r"lora\.target_modules: lm_head would not be trained"):
        inject_lora(base, settings(target_modules=["lm_head"]))


def test_rebuilt_elsewhere_it_is_the_same_to_the_bit(base):
    lora = inject_lora(base, settings())
    first = {n: p.clone() for n, p in live_lora_model(lora).model.named_parameters()}
    live.release()  # as in another process, or after a cached step
    torch.manual_seed(12345)
    second = dict(live_lora_model(lora).model.named_parameters())
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_random_state_gives_another_adapter(base):
    first = live_lora_model(inject_lora(base, settings())).model
    a = first.get_base_model().model.layers[0].mlp.up_proj.lora_A["default"].weight.clone()
    live.release()
    other = inject_lora(base, settings(random_state=7))
    b = live_lora_model(other).model.get_base_model().model.layers[0].mlp.up_proj.lora_A["default"]
    assert not torch.equal(a, b.weight)


def test_patterns_give_some_modules_another_rank_and_scaling(base):
    lora = inject_lora(
        base, settings(rank_pattern={"down_proj": 16}, alpha_pattern={"layers.0.*v_proj": 4})
    )
    described = describe_lora(base, lora.settings)
    assert described == lora
    found = {(t.name, t.rank, t.scaling): t.modules for t in lora.matched}
    assert found["down_proj", 16, ALPHA / 16] == 2
    assert found["v_proj", RANK, 4 / RANK] == found["v_proj", RANK, ALPHA / RANK] == 1
    assert found["q_proj", RANK, ALPHA / RANK] == 2
    assert lora.scaling == ALPHA / RANK
    plain = sum(RANK * (a + b) * LAYERS for a, b in SHAPES.values())
    assert lora.trainable_parameters == plain + (16 - RANK) * (160 + 64) * LAYERS

    model = live_lora_model(lora).model
    randomise_b(model)
    layer = model.get_base_model().model.layers[0].mlp.down_proj
    x = torch.randn(3, 160, generator=torch.Generator().manual_seed(2))
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        expected = x @ layer.base_layer.weight.T + ALPHA / 16 * (x @ a.T @ b.T)
        assert torch.allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank_pattern": {"c_attn": 4}}, r"lora\.rank_pattern: 'c_attn' matches no target module"),
        (
            {"alpha_pattern": {"q_proj": 4}, "target_modules": ["v_proj"]},
            r"lora\.alpha_pattern: 'q_proj' matches no target module; one is model\.layers\.0",
        ),
        ({"rank_pattern": {"(": 4}}, r"lora\.rank_pattern: '\(' is no regular expression"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(base, changes, message):
    with pytest.raises(LoraError, match=message):
        inject_lora(base, settings(**changes))


def test_a_gaussian_start_leaves_the_output_alone_and_spreads_a_by_one_over_r(base):
    before = logits(live_base_model(base).model.eval())
    lora = inject_lora(base, settings(init="gaussian"))
    model = live_lora_model(lora).model.eval()
    assert torch.equal(before, logits(model))
    a = torch.cat([p.flatten() for n, p in model.named_parameters() if "lora_A" in n])
    assert a.std().item() == pytest.approx(1 / RANK, rel=0.05)
