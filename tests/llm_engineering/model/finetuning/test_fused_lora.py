"""LoRA's passes written out, against PEFT's by autograd: the same numbers on 32-bit and on FP8 weights."""

from __future__ import annotations

import pytest
import torch

from llm_engineering.model import fp8
from llm_engineering.model.finetuning import fused_lora
from llm_engineering.model.finetuning.fused_lora import fuse_adapters

TARGETS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]


def adapted(quantised, **settings):
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


@pytest.mark.parametrize("quantised", [False, True], ids=["16 bit", "fp8"])
def test_outputs_and_gradients_are_those_of_autograd(quantised):
    x = torch.randn(2, 9, 64)
    plain, fused = adapted(quantised), adapted(quantised)
    assert fuse_adapters(fused) == 6
    expected, found = gradients(plain, x), gradients(fused, x)
    assert expected.keys() == found.keys()
    assert len(found) == 1 + 5 + 14
    for name, value in expected.items():
        # In FP8 dx is one product of three rounded together; apart, each has a scale of its own.
        tolerance = 0.05 if quantised and name == "x" else 1e-4
        if quantised and ("gate" in name or "up_proj" in name):
            tolerance = 0.05
        error = (value - found[name]).norm() / value.norm()
        assert error < tolerance, name


def test_an_input_is_quantised_once_for_all_that_read_it(monkeypatch):
    calls = []

    def spy(parts, scales=None):
        calls.append([part.shape[1] for part in parts])
        return real(parts, scales)

    real = fp8.quantise_rows
    model = adapted(True)
    fuse_adapters(model)
    monkeypatch.setattr(fused_lora, "quantise_rows", spy)
    monkeypatch.setattr(fp8, "quantise_rows", spy)
    gradients(model, torch.randn(1, 4, 64))
    forward, backward = calls[:4], calls[4:]
    assert forward == [[64], [64], [64], [160]]  # q k v; o; gate and up; down
    assert sorted(backward) == [[64], [64], [64, 32, 32], [160, 160]]


@pytest.mark.parametrize("quantised", [False, True], ids=["16 bit", "fp8"])
@pytest.mark.parametrize("case", ["switched off", "dropout", "two adapters"])
def test_other_adapters_take_the_way_they_took_before(quantised, case, monkeypatch):
    settings = {"lora_dropout": 0.5} if case == "dropout" else {}
    plain, fused = (adapted(quantised, **settings).train() for _ in range(2))
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
    model = adapted(False)
    attention = model.base_model.model.model.layers[0].self_attn
    attention.k_proj = attention.k_proj.base_layer
    attention.o_proj.base_layer.bias = torch.nn.Parameter(torch.ones(64))
    assert fuse_adapters(model) == 4
    assert attention.apply_qkv is _qkv
    assert attention.apply_o is _o


def test_a_model_of_another_build_is_left_alone():
    model = adapted(False)
    model.config.model_type = "falcon_h1"
    assert fuse_adapters(model) == 0
