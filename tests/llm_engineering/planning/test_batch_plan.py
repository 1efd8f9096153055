"""The choice of micro-batch and checkpointing for a GPU of so much memory."""

from __future__ import annotations

import pytest

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.planning.batch_plan import (
    BatchPlan,
    gpu_plans,
    smaller_plans,
    unestimated_plans,
    what_keeps_it_waiting,
)
from llm_engineering.planning.cards import CARDS, GIB, usable_bytes
from llm_engineering.planning.memory_table import card_table, explain_refusal, longest_row


@pytest.fixture
def chosen(work):
    """The first plan that fits a card."""

    def choose(capacity_gib, **settings):
        plans = gpu_plans(work(packing=True, **settings))
        return next((plan for plan in plans if plan.fits(capacity_gib * GIB)), None)

    return choose


def test_a_large_card_does_not_recompute_and_a_smaller_one_does(chosen):
    large = chosen(CARDS["H100"])
    assert (large.micro_batch, large.gradient_accumulation) == (4, 4)  # the fastest measured
    assert large.gradient_checkpointing == "none"
    assert chosen(CARDS["A100 40 GB"]).gradient_checkpointing == "none"
    assert chosen(CARDS["A100 40 GB"]).micro_batch < 4
    assert chosen(CARDS["L4"]).gradient_checkpointing in ("plain", "unsloth")
    assert chosen(CARDS["T4"]) is None
    assert chosen(CARDS["T4"], quantisation="nf4") is not None


@pytest.mark.parametrize("rows", [1, 6, 16, 17])
def test_every_plan_gives_exactly_the_configured_rows(rows, work):
    for plan in gpu_plans(work(effective_batch=rows)) + unestimated_plans(
        TrainSettings(effective_batch=rows)
    ):
        assert plan.micro_batch * plan.gradient_accumulation == rows


def test_what_is_chosen_by_hand_is_kept(work):
    plans = gpu_plans(work(micro_batch=8, gradient_checkpointing="plain"))
    assert {(p.micro_batch, p.gradient_checkpointing) for p in plans} == {(8, "plain")}
    assert [p.gradient_accumulation for p in plans] == [2]


def test_after_running_out_of_memory_the_next_plan_needs_less(work):
    plans, needs = gpu_plans(work()), []
    while plans:
        needs.append(plans[0].estimate.total)
        plans = smaller_plans(plans, plans[0])
    assert len(needs) >= 3
    assert needs == sorted(needs, reverse=True)


@pytest.mark.parametrize(("rows", "micro_batch"), [(32, 32), (64, 32), (34, 17), (6, 6)])
def test_a_small_model_reads_many_tokens_at_once(rows, micro_batch, work):
    """By tokens, not by rows: up to 65,536, and 16,000 at least (2 of 34 rows would be the nearest below)."""
    plan = gpu_plans(work("SmolLM2-135M", effective_batch=rows))[0]
    assert plan.micro_batch == micro_batch


def test_a_step_too_small_for_the_gpu_is_said(work):
    small = work("SmolLM2-135M", row=512, effective_batch=4)
    said = what_keeps_it_waiting(small, gpu_plans(small)[0])
    assert said == (
        "a forward pass has 2,048 tokens, and 16,000 would keep the GPU busy: train.effective_batch "
        "(4 rows of 512 tokens) is the limit; train.packing: true would fill the rows"
    )
    for enough in (work("SmolLM2-135M", effective_batch=8), work(effective_batch=4)):
        assert what_keeps_it_waiting(enough, gpu_plans(enough)[0]) is None


def test_a_step_of_several_passes_is_not_held_up_by_its_rows(work):
    small = work("SmolLM2-135M", row=512, effective_batch=4, micro_batch=2)
    assert what_keeps_it_waiting(small, gpu_plans(small)[0]) is None


def test_packed_rows_are_not_to_be_packed_and_a_pair_is_two_sequences(work):
    packed = work("SmolLM2-135M", row=512, effective_batch=4, packing=True)
    pairs = work("SmolLM2-135M", row=512, effective_batch=4, objective="dpo")
    said = what_keeps_it_waiting(packed, gpu_plans(packed)[0])
    assert said.endswith("(4 rows of 512 tokens) is the limit")
    said = what_keeps_it_waiting(pairs, gpu_plans(pairs)[0])
    assert said.startswith("a forward pass has 4,096 tokens, and 16,000 would")
    assert "(4 rows of 1,024 tokens)" in said


KINDS = {
    "none": "no checkpointing",
    "plain": "plain checkpointing",
    "unsloth": "unsloth's checkpointing",
    "tiled": "unsloth's checkpointing, feed-forward in tiles",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_told_in_words(kind):
    plan = BatchPlan(micro_batch=2, gradient_accumulation=8, gradient_checkpointing=kind)
    assert str(plan) == f"micro-batch 2 x 8, {KINDS[kind]}"
    shared = plan.model_copy(update={"sharded": True})
    assert str(shared) == f"micro-batch 2 x 8, {KINDS[kind]}, weights shared"


def test_a_plan_is_like_another_whatever_is_thought_of_its_memory(work):
    plan, other, *_ = gpu_plans(work())
    for memory in ({"estimate": other.estimate}, {"measured_bytes": 5}, {"off_by": 0.1}):
        assert plan.is_like(plan.model_copy(update=memory))
    for way in (
        {"micro_batch": 1},
        {"gradient_accumulation": 1},
        {"gradient_checkpointing": "plain"},
        {"sharded": True},
    ):
        assert not plan.is_like(plan.model_copy(update=way)), way


def test_a_cpu_that_runs_out_of_memory_takes_the_next_smaller_plan():
    plans = unestimated_plans(TrainSettings(effective_batch=4))
    assert [plan.micro_batch for plan in plans] == [2, 1]
    assert smaller_plans(plans, plans[0]) == plans[1:]
    assert smaller_plans(plans, plans[1]) == []


def test_a_cpu_takes_small_micro_batches_and_does_not_recompute():
    plan = unestimated_plans(TrainSettings(effective_batch=4))[0]
    assert str(plan) == "micro-batch 2 x 2, no checkpointing"
    assert unestimated_plans(TrainSettings(effective_batch=3))[0].micro_batch == 1
    kinds = {"auto": "none", "none": "none", "plain": "plain", "unsloth": "plain", "tiled": "plain"}
    for asked, made in kinds.items():
        (plan,) = unestimated_plans(
            TrainSettings(micro_batch=1, gradient_accumulation=2, gradient_checkpointing=asked)
        )
        assert plan.gradient_checkpointing == made


def test_cards_of_one_name_are_told_apart_by_their_memory():
    assert usable_bytes("A100", 40.0) == CARDS["A100 40 GB"] * GIB
    assert usable_bytes("A100", 80.0) == CARDS["A100 80 GB"] * GIB
    assert usable_bytes("T4", 16.0) == CARDS["T4"] * GIB
    assert usable_bytes("B200", 179.0) < 179.0 * GIB


def test_the_table_says_for_every_card_what_fits(work):
    table = {line.split("  ")[1].strip(): line for line in card_table(work())}
    assert set(table) == set(CARDS)
    assert table["T4"].endswith("does not fit")
    assert "micro-batch 4 x 4, no checkpointing; rows of up to " in table["H100"]


def test_the_table_knows_which_cards_have_fp8(work):
    table = {line.split("  ")[1].strip(): line for line in card_table(work(quantisation="fp8"))}
    without = {card for card, line in table.items() if line.endswith("has no FP8")}
    assert without == {"T4", "A10G", "A100 40 GB", "A100 80 GB"}
    assert "no checkpointing" in table["L40S"]


def test_the_longest_row_is_the_last_that_fits(work):
    asked = work(quantisation="nf4")
    found = [longest_row(asked, CARDS[card] * GIB) for card in ("T4", "L4", "H200")]
    assert found == sorted(found)
    assert found[0] > 1024
    for card, row in zip(("T4", "L4", "H200"), found, strict=True):
        for length, fits in ((row, True), (row + 256, False)):
            longer = work(quantisation="nf4", row=length)
            assert any(p.fits(CARDS[card] * GIB) for p in gpu_plans(longer)) is fits
    assert longest_row(work(), 1.0 * GIB) == 0


def test_a_refusal_shows_the_parts_and_what_would_help(work):
    message = explain_refusal(work(micro_batch=16, gradient_checkpointing="none"), "T4", 14.6 * GIB)
    assert message.startswith("this training does not fit T4 (14.6 GiB)")
    assert "micro-batch 16 x 1, no checkpointing, with rows of 2048 tokens" in message
    assert "base weights                     14.96 GiB" in message
    for hint in ("micro_batch: auto", "gradient_checkpointing: auto", "quantisation: nf4"):
        assert hint in message
