"""The memory estimate against peaks measured on one H100 (benchmarks/gpu_memory.py)."""

from __future__ import annotations

import pytest

from llm_engineering.planning.memory import estimate_memory

LLAMA_1B = "Llama-3.2-1B"


# Reserved GB at the peak of an optimizer step, without the CUDA context.
@pytest.mark.parametrize(
    ("settings", "micro_batch", "checkpointing", "measured_gb"),
    [
        ({}, 1, "none", 25.30),
        ({}, 4, "none", 49.42),
        ({"packing": True}, 4, "none", 46.79),
        ({"lora": {"r": 128}, "optimizer": "adamw_torch"}, 2, "none", 37.99),
        ({"lora": {"r": 16}, "row": 8192}, 1, "none", 48.59),
        ({"lora": {"target_modules": ["q_proj", "v_proj"]}}, 2, "none", 35.16),
        ({}, 4, "plain", 20.76),
        ({"lora": {"use_rslora": True}}, 8, "plain", 24.10),
        ({}, 2, "unsloth", 17.88),
        ({}, 8, "unsloth", 20.27),
        ({"lora": {"r": 64}, "row": 8192}, 2, "unsloth", 21.16),
        ({"quantisation": "nf4"}, 2, "none", 23.10),
        ({"quantisation": "fp8", "packing": True}, 4, "none", 40.21),
        ({"quantisation": "nf4", "lora": {"r": 16}}, 4, "unsloth", 8.06),
        ({"lora": {"use_dora": True}}, 2, "unsloth", 20.76),
        ({"model": LLAMA_1B}, 8, "none", 20.34),
        ({"model": LLAMA_1B, "packing": True}, 4, "none", 11.00),
        ({"model": LLAMA_1B, "row": 1024, "lora": {"r": 8}}, 8, "none", 11.61),
        ({"model": LLAMA_1B}, 16, "plain", 7.78),
        ({"model": LLAMA_1B, "lora": {"r": 64}, "optimizer": "adamw_torch"}, 16, "unsloth", 6.81),
        ({"model": LLAMA_1B, "row": 1024, "quantisation": "nf4"}, 8, "none", 10.10),
    ],
)
def test_it_is_within_a_thirtieth_of_what_was_measured(
    settings, micro_batch, checkpointing, measured_gb, work
):
    estimate = estimate_memory(work(**settings), micro_batch, checkpointing)
    assert estimate.training / 1e9 == pytest.approx(measured_gb, rel=1 / 30)


def test_checkpointing_and_quantisation_take_less(work):
    none, plain, unsloth = (
        estimate_memory(work(), 4, kind).total for kind in ("none", "plain", "unsloth")
    )
    assert none > plain > unsloth
    quantised = estimate_memory(work(quantisation="nf4"), 4, "unsloth")
    assert quantised.weights / 1e9 == pytest.approx(5.70, rel=0.02)  # as measured


def test_a_held_out_batch_counts_where_it_is_the_peak(work):
    small, large = (
        estimate_memory(work(quantisation="nf4", batch_size=size), 1, "unsloth") for size in (1, 32)
    )
    assert small.training == large.training
    assert large.reserved > small.reserved
    assert large.reserved > large.training


def test_the_largest_part_is_named(work):
    assert estimate_memory(work(), 8, "none").largest().startswith("activations ")
    assert estimate_memory(work(), 2, "unsloth").largest().startswith("weights ")


def test_fp8_takes_a_byte_a_parameter_and_is_loaded_in_16_bit(work):
    plain, fp8 = (estimate_memory(work(quantisation=q), 4, "unsloth") for q in ("none", "fp8"))
    linear = work().shape.linear_parameters
    assert plain.weights - fp8.weights == pytest.approx(0.998 * linear)
    assert fp8.loading == pytest.approx(plain.weights, rel=0.001)
    assert (plain.loading, fp8.reserved) == (0.0, pytest.approx(fp8.loading))  # more than training
