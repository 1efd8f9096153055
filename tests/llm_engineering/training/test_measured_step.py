"""A measured step before training: it corrects the plan, is told, and leaves no trace."""

from __future__ import annotations

import pytest
import torch

from llm_engineering.errors import HardwareError
from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.model.finetuning.record import TrainingRecord
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.planning import hardware
from llm_engineering.planning.batch_plan import USABLE_SHARE, gpu_plans
from llm_engineering.planning.correction import MeasuredStep
from llm_engineering.planning.workload import configured_workload
from llm_engineering.training import measured_step
from llm_engineering.training.attempt import Attempt
from llm_engineering.training.measured_step import longest_rows, measure_step, settle_plan

MICRO_BATCHES = {"train.micro_batch": "auto", "train.gradient_accumulation": None,
                 "train.effective_batch": 8}  # fmt: skip


@pytest.fixture
def attempt(make_config, tmp_path):
    """An attempt at eight rows a step, by plans for a GPU."""
    config = make_config({**MICRO_BATCHES, "lora.lora_dropout": 0.1})
    lora = inject_lora(load_model(config.model), config.lora)
    work = configured_workload(config, trained_shape(config.model, config.lora), "float32")
    plans = gpu_plans(work)
    return Attempt(
        lora=lora, dataset=tmp_path, settings=config.train, evaluate=config.evaluate, seed=0,
        start=None, plan=plans[0], candidates=plans, checkpoint=None, record=TrainingRecord(),
        folder=tmp_path / "run",
    )  # fmt: skip


def test_packed_rows_of_a_family_with_a_mask_keep_their_estimate(
    attempt, card, caplog, monkeypatch
):
    """Gemma-3's training took 49 GiB after a step of 39, planned as 46."""
    caplog.set_level("INFO")
    model = live_lora_model(attempt.lora)
    monkeypatch.setattr(model.model.config, "model_type", "phi3")
    attempt = attempt.model_copy(
        update={"settings": attempt.settings.model_copy(update={"packing": True})}
    )
    card(capacity_for(attempt.candidates[0], 0.9), 0.5)  # the first does not fit as estimated
    attempt = attempt.model_copy(update={"plan": attempt.candidates[1]})
    plan = settle_plan(attempt, live_lora_model(attempt.lora), None)
    assert plan.is_like(attempt.candidates[1])
    assert plan.estimate.training == pytest.approx(
        attempt.candidates[1].estimate.training, rel=1e-6
    )
    assert "it stays, and so does its estimate" in caplog.text


@pytest.fixture
def card(monkeypatch):
    """A GPU whose capacity and whose steps the test says."""

    def have(capacity, taken):
        measured = []

        def measure(attempt, live_model, rows, plan):
            measured.append(plan)
            estimate = plan.estimate
            adapter = 4 * attempt.lora.trainable_parameters
            more = taken * (estimate.activations + estimate.working)
            return MeasuredStep(
                held=int(estimate.weights + adapter),
                peak=int(estimate.weights + estimate.adapter + estimate.spare + more),
            )

        monkeypatch.setattr(hardware, "has_gpu", lambda: True)
        monkeypatch.setattr(hardware, "gpu_capacity_bytes", lambda: capacity)
        monkeypatch.setattr(measured_step, "measure_step", measure)
        return measured

    return have


def capacity_for(plan, taken):
    """Bytes of a card that just holds a plan whose activations are so many times the estimate."""
    e = plan.estimate
    held = e.weights + e.adapter + e.spare + e.context
    return (held + taken * (e.activations + e.working)) / USABLE_SHARE


def test_what_agrees_stays_and_is_told(attempt, card, caplog):
    caplog.set_level("INFO")
    measured = card(80e9, taken=1.0)
    plan = settle_plan(attempt, live_lora_model(attempt.lora), None)
    assert plan.is_like(attempt.plan)
    assert plan.measured_bytes is not None
    assert len(measured) == 1
    assert "0.0 % " in caplog.text
    assert caplog.text.rstrip().endswith("it stays")


def test_a_step_that_takes_more_leads_to_a_smaller_plan_before_training(attempt, card, caplog):
    caplog.set_level("INFO")
    capacity = capacity_for(attempt.plan, 20.0)
    measured = card(capacity, taken=40.0)
    plan = settle_plan(attempt, live_lora_model(attempt.lora), None)
    assert len(measured) == 1
    assert not plan.is_like(attempt.plan)
    assert plan.fits(capacity)
    assert " % more than the " in caplog.text
    assert f"going on with {plan}" in caplog.text


def test_a_step_that_takes_less_leads_to_a_faster_plan_which_is_measured_too(attempt, card):
    fastest = attempt.candidates[0]
    small = attempt.candidates[-1]
    slow = attempt.model_copy(update={"plan": small})
    measured = card(80e9, taken=0.5)
    plan = settle_plan(slow, live_lora_model(attempt.lora), None)
    assert plan.is_like(fastest)
    assert [one.is_like(other) for one, other in zip(measured, (small, fastest), strict=True)]
    assert plan.measured_bytes is not None


@pytest.mark.parametrize("reason", ["no GPU", "shared weights", "no candidates"])
def test_what_cannot_be_corrected_is_not_measured(reason, attempt, card, monkeypatch):
    measured = card(80e9, taken=1.0)
    if reason == "no GPU":
        monkeypatch.setattr(hardware, "has_gpu", lambda: False)
    elif reason == "shared weights":
        plan = attempt.plan.model_copy(update={"sharded": True})
        attempt = attempt.model_copy(update={"plan": plan})
    else:
        attempt = attempt.model_copy(update={"candidates": []})
    assert settle_plan(attempt, live_lora_model(attempt.lora), None) is attempt.plan
    assert measured == []


def test_ranks_decide_by_the_largest_of_their_figures(attempt, card, monkeypatch):
    """One rank's step takes what this one's does, the other's much more."""

    def all_values(value):
        if isinstance(value, MeasuredStep):
            more = 39.0 * (estimate.activations + estimate.working)
            return [value, MeasuredStep(held=value.held, peak=int(value.peak + more))]
        return [value, value]

    estimate = attempt.plan.estimate
    card(capacity_for(attempt.plan, 20.0), taken=1.0)
    assert settle_plan(attempt, live_lora_model(attempt.lora), None).is_like(attempt.plan)
    monkeypatch.setattr(measured_step.world, "all_values", all_values)
    assert not settle_plan(attempt, live_lora_model(attempt.lora), None).is_like(attempt.plan)


@pytest.fixture
def rows():
    import datasets

    rows = [{"input_ids": [7] * size, "labels": [7] * size} for size in (3, 9, 5, 1)]
    return datasets.Dataset.from_list(rows)


def test_the_longest_rows_are_taken(rows):
    assert [len(ids) for ids in longest_rows(rows, 3, None)["input_ids"]] == [9, 5, 3]
    assert [len(ids) for ids in longest_rows(rows, 6, None)["input_ids"]] == [9, 5, 3, 1, 9, 5]


@pytest.mark.parametrize(
    ("count", "length", "sizes"),
    [
        (2, 16, [3, 9, 5, 1, 3, 9, 2]),
        (1, 4, [3, 1]),
        (2, 6, [3, 9]),
        (1, 60, [3, 9, 5, 1] * 3 + [3, 3]),
    ],
)
def test_packed_rows_are_measured_as_the_documents_that_fill_them(rows, count, length, sizes):
    """One document a row would need no mask: 40 GiB were measured so of a mixture that then took 52."""
    found = longest_rows(rows, count, length)
    for name in ("input_ids", "labels"):
        assert [len(ids) for ids in found[name]] == sizes
    assert sum(sizes) == count * length


def test_a_measured_step_leaves_no_trace(attempt, rows):
    """Not in the adapter, nor in gradients, nor in what a trainer puts on the model."""
    live = live_lora_model(attempt.lora)
    before = {name: value.clone() for name, value in live.model.state_dict().items()}
    kept = {name: vars(live.model).get(name) for name in ("forward", "_original_forward")}

    step = measure_step(attempt, live, rows, attempt.plan)

    assert step.peak > 0
    after = live.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in live.model.parameters())
    assert {name: vars(live.model).get(name) for name in kept} == kept


@pytest.mark.slow
def test_a_training_after_it_is_the_same_to_the_bit(make_config, run, tmp_path, monkeypatch):
    config = make_config({**MICRO_BATCHES, "lora.lora_dropout": 0.1})
    _, _, plain, _ = run(config, tmp_path / "plain")

    from llm_engineering.training import here

    def measured(attempt, live_model, rows):
        measure_step(attempt, live_model, rows, attempt.plan)
        return attempt.plan

    monkeypatch.setattr(here, "settle_plan", measured)
    _, _, after, record = run(config, tmp_path / "measured")
    assert after.digest == plain.digest
    assert record.plan is not None


def test_out_of_memory_while_it_is_measured_ends_in_a_smaller_plan(
    make_config, run, tmp_path, monkeypatch
):
    """As while training: the plan that failed, and larger ones, are not tried again."""
    from llm_engineering.training import here

    tried = []

    def settle(attempt, live_model, rows):
        tried.append(attempt.plan)
        attempt.record.plan = attempt.plan
        assert all(not one.is_like(failed) for one in attempt.candidates for failed in tried[:-1])
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr(here, "settle_plan", settle)
    with pytest.raises(HardwareError, match="the smallest plan that the settings allow"):
        run(make_config(MICRO_BATCHES), tmp_path)
    assert [plan.micro_batch for plan in tried] == [2, 1]
