"""FP8 on a GPU: its kernels give what the functions for the CPU give, and a training learns the same."""

from __future__ import annotations

import pytest
import torch

from llm_engineering.model import fp8, live

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(autouse=True)
def has_fp8(gpu):
    from llm_engineering.planning.hardware import FP8_CAPABILITIES

    if torch.cuda.get_device_capability() not in FP8_CAPABILITIES:
        pytest.skip("needs a GPU with FP8")


def error(found, wanted):
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("scaled", [False, True])
def test_rows_are_quantised_as_on_a_cpu(scaled):
    torch.manual_seed(0)
    parts = [torch.randn(300, n, device="cuda", dtype=torch.bfloat16) for n in (1536, 576, 4096)]
    scales = [torch.rand(p.shape[1], device="cuda") + 0.5 for p in parts] if scaled else None
    values, row = fp8.quantise_rows(parts, scales)
    there = fp8.quantise_rows([p.cpu() for p in parts], scales and [s.cpu() for s in scales])
    assert error(row, there[1]) < 1e-6
    assert (values.cpu().float() != there[0].float()).float().mean() < 1e-3


def test_bytes_are_transposed_as_on_a_cpu():
    weights = [torch.randint(0, 255, (n, 592), device="cuda", dtype=torch.uint8) for n in (208, 80)]
    assert torch.equal(fp8.transposed(weights).cpu(), fp8.transposed([w.cpu() for w in weights]))


def test_products_are_those_of_the_rounded_matrices():
    torch.manual_seed(0)
    linear = torch.nn.Linear(1536, 4096, bias=False, device="cuda", dtype=torch.bfloat16)
    held = fp8.Fp8Linear(linear)
    x = torch.randn(1000, 1536, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    dy = torch.randn(1000, 4096, device="cuda", dtype=torch.bfloat16)
    y = held(x)
    y.backward(dy)
    weight = held.dequantised().double()
    values, scale = fp8.quantise_rows([x.detach()])
    assert error(y, values.double() * scale @ weight.t()) < 5e-3
    values, scale = fp8.quantise_rows([dy], [held.scale])
    assert error(x.grad, values.double() * scale @ (weight / held.scale[:, None])) < 5e-3


def test_what_is_learned_is_what_16_bit_weights_learn(run, on_gpu, tmp_path):
    found = {}
    for kind in ("none", "fp8"):
        config = on_gpu(
            "sft",
            {"model.quantisation": kind, "model.dtype": "bfloat16", "train.max_steps": 30},
        )
        record = run(config, tmp_path / kind)[-1]
        live.release()
        found[kind] = record.held_out[-1].metrics.loss
        assert found[kind] < 0.95 * record.held_out[0].metrics.loss
    assert found["fp8"] <= 1.005 * found["none"]
