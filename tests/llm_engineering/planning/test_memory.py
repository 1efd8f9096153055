"""The memory estimate against peaks measured on one H100 (benchmarks/gpu_memory.py)."""

from __future__ import annotations

import pytest

from llm_engineering.errors import HardwareError
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.planning.batch_plan import gpu_plans
from llm_engineering.planning.memory import MemoryEstimate, estimate_memory
from llm_engineering.planning.workload import Workload

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
        ({"row": 32_768}, 1, "unsloth", 23.64),
        ({"row": 131_072}, 1, "tiled", 38.63),
        ({"row": 32_768, "quantisation": "nf4"}, 1, "tiled", 12.32),
        ({"row": 131_072, "quantisation": "nf4"}, 1, "tiled", 27.24),
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


def cut(family, vocabulary, total, trainable, **layer):
    """A model of few layers, micro-batch 4, rows of 2,048, 8-bit AdamW, nothing recomputed."""
    layer = {"linear_parameters": 1, **layer}
    return Workload.model_validate(
        {
            "shape": {
                "family": family, "hidden": layer.pop("hidden"), "vocabulary": vocabulary,
                "parameters": total, "layers": [layer],
            },
            "adapter": {
                "parameters": trainable, "outputs": 1, "weights": 1, "is_everywhere": True,
            },
            "dtype": "bfloat16", "quantisation": "none", "lora": {},
            "train": {"optimizer": "adamw_8bit"}, "evaluate": {}, "longest_row": 2048,
            "mean_row": 2048,
        }
    )  # fmt: skip


# Reserved GB on one H200, without the CUDA context; what a token keeps as the modules say.
CUT = {
    "Llama-3.1-8B": (12.04, cut("llama", 128256, 2_359_349_248, 15_728_640, hidden=4096, count=6,
                     parameters=218_112_000, kept=55_296, attention=4096, inner=14_336)),
    "Qwen3-8B": (11.94, cut("qwen3", 151936, 2_402_342_400, 14_548_992, hidden=4096, count=6,
                 parameters=192_946_432, kept=56_320, attention=4096, inner=12_288)),
    "Qwen3-0.6B": (11.88, cut("qwen3", 151936, 596_049_920, 20_185_088, hidden=1024, count=28,
                   parameters=15_730_944, kept=19_456, attention=2048, inner=3072)),
    "Mistral-7B": (10.47, cut("mistral", 32768, 1_577_111_552, 15_728_640, hidden=4096, count=6,
                   parameters=218_112_000, kept=55_296, attention=4096, inner=14_336)),
    "Phi-3-mini": (8.89, cut("phi3", 32064, 876_518_400, 9_437_184, hidden=3072, count=6,
                   parameters=113_252_352, kept=40_960, attention=3072, inner=8192)),
    "Qwen3-30B-A3B": (12.38, cut("qwen3_moe", 151936, 3_114_814_464, 107_085_824, hidden=2048,
                      count=4, parameters=623_120_640, kept=19_968, kept_by_experts=34_816,
                      attention=4096, inner=6144, expert_parameters=603_979_776)),
}  # fmt: skip


@pytest.mark.parametrize("model", CUT)
def test_other_families_are_within_six_percent_of_what_was_measured(model):
    measured_gb, workload = CUT[model]
    estimate = estimate_memory(workload, 4, "none")
    assert estimate.training / 1e9 == pytest.approx(measured_gb, rel=0.06)


# Of whole runs of the command, packed, after the measured step; with what a mask takes in each layer.
PACKED = {
    "Qwen3-30B-A3B, 12 layers": (56.2, cut("qwen3_moe", 151936, 8_099_779_584, 321_257_472, hidden=2048,
        count=12, parameters=623_120_640, kept=19_968, kept_by_experts=34_816, attention=4096, inner=6144,
        expert_parameters=603_979_776, idle_parameters=566_231_040)),
    "Gemma-3-4b": (94.3, cut("gemma3_text", 262208, 4_300_079_472, 59_604_992, hidden=2560, count=34,
        parameters=94_382_592, kept=45_056, attention=2048, inner=10_240)),
}  # fmt: skip


@pytest.mark.parametrize("model", PACKED)
def test_packed_rows_of_families_without_a_kernel_for_them_need_masks(model):
    measured_gb, workload = PACKED[model]
    train = workload.train.model_copy(update={"packing": True})
    packed = workload.model_copy(update={"train": train})
    estimate = estimate_memory(packed, 8, "none")
    assert estimate.training / 1e9 == pytest.approx(measured_gb, rel=0.1)
    assert estimate.training > 1.08 * estimate_memory(workload, 8, "none").training
    assert max(plan.micro_batch for plan in gpu_plans(packed)) == 4
    assert max(plan.micro_batch for plan in gpu_plans(workload)) > 4


def test_checkpointing_and_quantisation_take_less(work):
    none, plain, unsloth = (
        estimate_memory(work(), 4, kind).total for kind in ("none", "plain", "unsloth")
    )
    assert none > plain > unsloth
    quantised = estimate_memory(work(quantisation="nf4"), 4, "unsloth")
    assert quantised.weights / 1e9 == pytest.approx(5.70, rel=0.02)  # as measured


def test_tiles_take_the_least_of_long_rows_and_every_other_kind_is_faster(work):
    row = work(row=131_072)
    kinds = ("none", "plain", "unsloth", "tiled")
    sizes = [estimate_memory(row, 1, kind).training for kind in kinds]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] - sizes[3] > 4e9
    chosen = [plan.gradient_checkpointing for plan in gpu_plans(row)]
    assert list(dict.fromkeys(chosen)) == list(kinds)


def test_a_mixture_has_no_tiles():
    layer = {"hidden": 64, "count": 1, "parameters": 9, "kept": 1, "attention": 1, "inner": 1}
    mixture = cut("m", 9, 9, 9, **layer)
    assert "tiled" not in [plan.gradient_checkpointing for plan in gpu_plans(mixture)]
    train = mixture.train.model_copy(update={"gradient_checkpointing": "tiled"})
    with pytest.raises(HardwareError, match="a layer of m has none; use auto or unsloth"):
        gpu_plans(mixture.model_copy(update={"train": train}))


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


def test_trained_tokens_take_copies_of_both_matrices_and_their_gradients(work):
    plain, tokens = (
        estimate_memory(work(lora={"trainable_tokens": names}), 4, "none")
        for names in ([], ["<a>"])
    )
    shape = work().shape
    matrices = 2 * 2 * shape.vocabulary * shape.hidden  # bytes in 16 bit
    assert tokens.training - plain.training == pytest.approx(2 * matrices, rel=1e-3)
    assert tokens.evaluating - plain.evaluating == pytest.approx(matrices, rel=1e-3)


def test_fp8_takes_a_byte_a_parameter_and_is_loaded_in_16_bit(work):
    plain, fp8 = (estimate_memory(work(quantisation=q), 4, "unsloth") for q in ("none", "fp8"))
    linear = work().shape.linear_parameters
    assert plain.weights - fp8.weights == pytest.approx(0.998 * linear)
    assert fp8.loading == pytest.approx(plain.weights, rel=0.001)
    assert (plain.loading, fp8.reserved) == (0.0, pytest.approx(fp8.loading))  # more than training


# --- by the parts that its docstring names, to the byte -----------------------------------------

SMALL = "SmolLM2-135M"
HIDDEN, INNER, VOCABULARY = 576, 1536, 49_152  # its own


def test_what_a_layer_keeps_is_what_its_modules_say(work):
    """Of Llama-3.1-8B 55,296 numbers a token, 0.3 hidden widths more, the attention's output again."""
    states = 4096 * 2 * 4096  # of 4,096 tokens in 16 bit
    layer = 4096 * 2 * (55_296 + 0.3 * 4096 + 4096)
    none, plain, unsloth, tiled = (
        estimate_memory(work(), 2, kind).activations
        for kind in ("none", "plain", "unsloth", "tiled")
    )
    assert none == pytest.approx(32 * layer, abs=1)
    assert plain == pytest.approx(32 * states + layer, abs=1)
    assert unsloth == pytest.approx(3 * states + layer, abs=1)
    assert tiled == pytest.approx(10.7 * states + layer, abs=1)  # all tokens in the one tile
    inside = 2 * 14_336 * 2  # outputs of gate and up, of a token that is in another tile
    more = estimate_memory(work(), 3, "tiled").activations - tiled
    assert more == pytest.approx(10.7 * states / 2 + layer / 2 - 2048 * inside, rel=0.1)


def test_dora_keeps_four_32_bit_numbers_for_each_output(work):
    plain, dora = work(), work(lora={"use_dora": True})
    more = (
        estimate_memory(dora, 2, "none").activations - estimate_memory(plain, 2, "none").activations
    )
    assert more == pytest.approx(4096 * 16 * dora.adapter.outputs, rel=1e-6)


def test_fp8_holds_the_largest_projections_once_more(work):
    plain, fp8 = (
        estimate_memory(work(quantisation=kind), 8, "unsloth").working for kind in ("none", "fp8")
    )
    assert plain == pytest.approx(16_384 * 2 * 1.6 * 14_336)
    assert fp8 - plain == pytest.approx(2 * 14_336 * 4096)


@pytest.mark.parametrize(
    ("rows", "logits"),
    [
        (8, 4096),  # 3.2e9 planned bytes are one chunk
        (12, 6144 // 4),  # above 4 GiB it is four chunks,
        (48, 24_576 // 8),  # and from there four more at a time
    ],
)
def test_the_fused_loss_holds_one_chunk_of_logits(rows, logits, work):
    estimate = estimate_memory(work(SMALL, row=512), rows, "unsloth")
    assert estimate.working == logits * VOCABULARY * 1.5


def test_a_chunk_may_be_full_to_the_byte():
    """8,192 tokens of 32,768 words at 16 bytes are 4 GiB."""
    layer = {"hidden": 64, "count": 1, "parameters": 9, "kept": 1, "attention": 1, "inner": 1}
    estimate = estimate_memory(cut("mistral", 32_768, 9, 9, **layer), 4, "none")
    assert estimate.working == 8192 * 32_768 * 1.5


def test_a_pair_is_two_sequences_and_an_objective_may_make_all_their_logits(work, monkeypatch):
    pairs = work(SMALL, row=512, objective="dpo")
    assert estimate_memory(pairs, 3, "unsloth").working == 3072 * VOCABULARY * 1.5
    monkeypatch.setattr(OBJECTIVES["dpo"], "makes_all_logits", True, raising=False)
    assert estimate_memory(pairs, 3, "unsloth").working == 3072 * VOCABULARY * 8


@pytest.mark.parametrize(
    ("rows", "train", "tokens", "whole"),
    [
        (4, {}, 2048, True),
        (4, {"objective": "dpo"}, 4096, True),
        (64, {}, 32_768, False),  # 3.2 GB of logits in 16 bit: made by pieces
    ],
)
def test_a_held_out_batch_takes_logits_states_and_a_chunk_in_32_bit(
    rows, train, tokens, whole, work
):
    estimate = estimate_memory(work(SMALL, row=512, batch_size=rows, **train), 1, "unsloth")
    states = tokens * 2 * HIDDEN
    logits = tokens * 2 * VOCABULARY if whole else 2 * 4096 * 32_768 + states
    assert estimate.evaluation == (
        logits + 256 * VOCABULARY * 12 + 4 * states + tokens * 2 * 2 * INNER
    )


@pytest.mark.parametrize("kind", ["nf4", "fp8"])
def test_a_mixtures_experts_are_narrowed_by_nf4_alone(kind):
    _, mixture = CUT["Qwen3-30B-A3B"]
    experts, linear, total = 4 * 603_979_776, 4, 3_114_814_464
    narrow, bytes_each = {"nf4": (experts + linear, 0.5 + 1.03 / 64), "fp8": (linear, 1.002)}[kind]
    estimate = estimate_memory(mixture.model_copy(update={"quantisation": kind}), 1, "none")
    assert estimate.weights == pytest.approx((total - narrow) * 2 + narrow * bytes_each, abs=1)


def test_the_largest_part_is_told_in_gib():
    parts = dict.fromkeys(("adapter", "activations", "working", "evaluation"), 1.0)
    assert MemoryEstimate(weights=2.5 * 1024**3, **parts).largest() == "weights 2.5 GiB"
