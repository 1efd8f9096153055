"""LoRA's passes beside FP8 weights written out, against PEFT's by autograd: the same numbers."""

from __future__ import annotations

import pytest
import torch

from llm_engineering.model import fp8
from llm_engineering.model.finetuning import fused_lora
from llm_engineering.model.finetuning.fused_lora import fuse_adapters

TARGETS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]


def adapted(*, quantised=True, **settings):
    """A two-layer Llama with adapters that do something; equal settings give equal models."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=128,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    if quantised:
        fp8.quantise_projections(model)
    lora = LoraConfig(
        target_modules=TARGETS, init_lora_weights=False, rank_pattern={"k_proj": 3, "up_proj": 6},
        **{"r": 4, "lora_alpha": 6, **settings},
    )  # fmt: skip
    model = get_peft_model(model, lora)
    for layer in model.base_model.model.model.layers:  # as unsloth leaves them
        layer.self_attn.apply_qkv = _qkv
        layer.self_attn.apply_o = _o
    return model


def _qkv(self, x):
    return self.q_proj(x), self.k_proj(x), self.v_proj(x)


def _o(self, x):
    return self.o_proj(x)


def gradients(model, given):
    """Of a block of each kind of a model, and of what they read."""
    layer = model.base_model.model.model.layers[1]
    x = given.clone().requires_grad_()
    attention = layer.self_attn
    ys = [*attention.apply_qkv(attention, x), attention.apply_o(attention, x), layer.mlp(x)]
    torch.manual_seed(1)
    sum((y * torch.randn_like(y)).sum() for y in ys).backward()
    found = {name: p.grad for name, p in layer.named_parameters() if p.requires_grad}
    return {"x": x.grad, **{f"y{number}": y.detach() for number, y in enumerate(ys)}, **found}


def test_outputs_and_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    x = torch.randn(2, 9, 64)
    plain, fused = adapted(), adapted()
    assert fuse_adapters(fused) == 6
    expected, found = gradients(plain, x), gradients(fused, x)
    assert expected.keys() == found.keys()
    assert len(found) == 1 + 5 + 14
    for name, value in expected.items():
        # dx is one product of all outputs rounded together; apart, each has a scale of its own.
        tolerance = 0.05 if name == "x" or "gate" in name or "up_proj" in name else 1e-4
        error = (value - found[name]).norm() / value.norm()
        assert error < tolerance, name


def test_nothing_is_forgotten_where_rounding_hides_nothing(monkeypatch):
    """As above with matrices that are not rounded: equal to the last digits."""
    monkeypatch.setattr(fp8, "FP8", torch.float32)
    monkeypatch.setattr(fp8.Fp8Linear, "hold", _hold)
    monkeypatch.setattr(fp8, "multiply_back", _multiply_back)
    monkeypatch.setattr(fused_lora, "multiply_back", _multiply_back)
    monkeypatch.setattr(fused_lora, "multiply", _multiply)
    monkeypatch.setattr(fp8, "multiply", _multiply)
    x = torch.randn(2, 9, 64)
    plain, fused = adapted(), adapted()
    fuse_adapters(fused)
    expected, found = gradients(plain, x), gradients(fused, x)
    for name, value in expected.items():
        assert (value - found[name]).norm() / value.norm() < 1e-5, name


def _hold(self, weight):
    self.qweight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
    self.register_buffer("scale", torch.ones(weight.shape[0]))


def _multiply(x, linear):
    return x[0] * x[1] @ linear.qweight.t()


def _multiply_back(dys, linears):
    return sum(dy @ linear.qweight for dy, linear in zip(dys, linears, strict=True))


def test_an_input_is_quantised_once_for_all_that_read_it(monkeypatch):
    calls = []

    def spy(parts, scales=None):
        calls.append([part.shape[1] for part in parts])
        return real(parts, scales)

    real = fp8.quantise_rows
    model = adapted()
    fuse_adapters(model)
    monkeypatch.setattr(fused_lora, "quantise_rows", spy)
    monkeypatch.setattr(fp8, "quantise_rows", spy)
    gradients(model, torch.randn(1, 4, 64))
    forward, backward = calls[:4], calls[4:]
    assert forward == [[64], [64], [64], [160]]  # q k v; o; gate and up; down
    assert sorted(backward) == [[64], [64], [64, 32, 32], [160, 160]]


@pytest.mark.parametrize("case", ["switched off", "dropout", "two adapters"])
def test_other_adapters_take_the_way_they_took_before(case, monkeypatch):
    settings = {"lora_dropout": 0.5} if case == "dropout" else {}
    plain, fused = (adapted(**settings).train() for _ in range(2))
    fuse_adapters(fused)
    monkeypatch.setattr(fused_lora._SharedInput, "apply", None)
    monkeypatch.setattr(fused_lora._FeedForward, "apply", None)
    ids = torch.randint(0, 128, (1, 8))
    found = []
    for model in (plain, fused):
        layer = model.base_model.model.model.layers[0]
        if case == "two adapters":
            torch.manual_seed(3)
            model.add_adapter("other", model.peft_config["default"])
            model.base_model.set_adapter(["default", "other"])
        torch.manual_seed(4)
        x = model.get_input_embeddings()(ids)
        if case == "switched off":
            with model.disable_adapter():
                found.append((layer.mlp(x), *layer.self_attn.apply_qkv(layer.self_attn, x)))
        else:
            found.append((layer.mlp(x), *layer.self_attn.apply_qkv(layer.self_attn, x)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_projections_without_an_adapter_or_with_a_bias_are_left_alone():
    model = adapted()
    attention = model.base_model.model.model.layers[0].self_attn
    attention.k_proj = attention.k_proj.base_layer
    attention.o_proj.base_layer.bias = torch.nn.Parameter(torch.ones(64))
    assert fuse_adapters(model) == 4
    assert attention.apply_qkv is _qkv
    assert attention.apply_o is _o


def test_a_model_of_another_build_is_left_alone():
    model = adapted()
    model.config.model_type = "falcon_h1"
    assert fuse_adapters(model) == 0


def test_16_bit_weights_are_left_to_unsloth():
    assert fuse_adapters(adapted(quantised=False)) == 0
