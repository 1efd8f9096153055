"""FP8 weights by the functions for a CPU, against the same arithmetic written out plainly."""

from __future__ import annotations

import logging

import pytest
import torch

from llm_engineering.model.fp8 import (
    FP8,
    LARGEST,
    Fp8Linear,
    multiply_back,
    quantise_projections,
    quantise_rows,
    transposed,
)

ROUNDING = 2**-4  # half a step of three bits of mantissa, of the number itself


def linear(out=48, width=80, seed=0, bias=False):
    torch.manual_seed(seed)
    return torch.nn.Linear(width, out, bias=bias)


def rounded(matrix):
    """What a matrix becomes in FP8 by row: quantised and put back, in 32 bit."""
    scale = matrix.abs().amax(1, keepdim=True) / LARGEST
    return (matrix / scale).to(FP8).float() * scale


def test_a_weight_takes_a_byte_a_parameter_and_is_rounded_by_row():
    plain = linear(64, 512)
    with torch.no_grad():
        plain.weight[3] *= 1000  # a row of its own scale leaves the others as exact as they were
    weight = plain.weight.detach().clone()
    held = Fp8Linear(plain)
    size = sum(t.numel() * t.element_size() for t in held.state_dict().values())
    assert size <= 1.1 * weight.numel()
    error = (held.dequantised() - weight).abs()
    smallest = weight.abs().amax(1, keepdim=True) / LARGEST * 2**-10  # half the least number
    assert (error <= ROUNDING * weight.abs() + smallest).all()
    assert error.norm() > 0
    assert [p.requires_grad for p in held.parameters()] == [False]


def test_forward_and_backward_are_products_of_the_rounded_matrices():
    plain = linear(bias=True)
    weight, bias = plain.weight.detach().clone(), plain.bias
    held = Fp8Linear(plain)
    x = torch.randn(2, 5, 80, requires_grad=True)
    y = held(x)
    dy = torch.randn_like(y)
    y.backward(dy)

    flat, dflat, scale = x.detach().view(10, 80), dy.view(10, 48), held.scale
    assert torch.allclose(y.view(10, 48), rounded(flat) @ rounded(weight).t() + bias, atol=1e-5)
    # On the way back the scales of the weight's rows go into dy before that is rounded.
    expected = rounded(dflat * scale) @ (rounded(weight) / scale[:, None])
    assert torch.allclose(x.grad.view(10, 80), expected, atol=1e-5)
    # And it is the gradient that 16-bit weights would have given, but for the rounding.
    plainly = dflat @ weight
    assert 0.005 < (x.grad.view(10, 80) - plainly).norm() / plainly.norm() < 0.06


def test_projections_with_one_input_are_one_product_on_the_way_back():
    helds = [Fp8Linear(linear(out, 80, seed)) for seed, out in enumerate((48, 16, 32))]
    dys = [torch.randn(7, held.out_features) for held in helds]
    scale = torch.cat([held.scale for held in helds])
    stacked = torch.cat([held.dequantised() / held.scale[:, None] for held in helds])
    expected = rounded(torch.cat(dys, 1) * scale) @ stacked
    assert torch.allclose(multiply_back(dys, helds), expected, atol=1e-5)


def test_rows_are_quantised_alone():
    """A token of large numbers costs the others nothing, and one of zeros is no division by zero."""
    x = torch.randn(4, 32)
    alone = quantise_rows([x])
    x[1], x[2] = x[1] * 1e6, 0.0
    values, scales = quantise_rows([x])
    assert torch.equal(values[[0, 3]].float(), alone[0][[0, 3]].float())
    assert torch.equal(scales[[0, 3]], alone[1][[0, 3]])
    assert values.float()[2].abs().max() == 0
    assert values.float().abs().max() == LARGEST


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad):
    """It may not come out as a number, which nobody would notice."""
    held = Fp8Linear(linear())
    x = torch.randn(3, 80)
    x[1, 5] = bad
    y = held(x)
    assert not y[1].isfinite().any()
    assert y[[0, 2]].isfinite().all()


def test_bytes_are_transposed():
    weights = [torch.randint(0, 255, (n, 6), dtype=torch.uint8) for n in (4, 3)]
    turned = transposed(weights)
    assert turned.is_contiguous()
    assert torch.equal(turned, torch.cat(weights).t())


def test_projections_of_a_decoder_are_quantised_and_nothing_else(caplog):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=64, intermediate_size=100, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=128,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.model.layers[0].mlp.gate = torch.nn.Linear(64, 16, bias=False)  # chooses experts
    with caplog.at_level(logging.WARNING):
        quantise_projections(model)
    quantised = {name for name, m in model.named_modules() if isinstance(m, Fp8Linear)}
    assert quantised == {
        f"model.layers.{layer}.self_attn.{kind}_proj" for layer in (0, 1) for kind in "qkvo"
    }
    # 100 is no multiple of 16: said, not done in silence.
    assert "leaves 6 projections in 16 bit" in caplog.text
    assert "layers.0.mlp.gate_proj (100 x 64)" in caplog.text
    assert type(model.lm_head) is torch.nn.Linear
    assert model(torch.randint(0, 128, (1, 9))).logits.isfinite().all()
