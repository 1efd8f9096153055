"""Preference objectives on the tiny Llama: what is learned, against which reference, and resumed."""

import pytest

from llm_engineering.model import live
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.finetuning.adapter_folder import live_trained_model, require_same_shape
from llm_engineering.registry.starting_adapter import starting_adapter

pytestmark = pytest.mark.slow

LN2 = 0.6931


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_the_better_answers_are_preferred_after_training(
    run, preference_config, tmp_path, objective
):
    # A single answer's reward has to change its sign against all others', which takes more steps.
    more = {"train.max_steps": 24} if objective == "kto" else {}
    lora, dataset, adapter, record = run(preference_config(objective, more), tmp_path)
    before, after = record.before.rewards, record.after.rewards
    assert after.margin > before.margin + 0.003
    assert after.accuracy > 0.7
    assert record.after.loss < record.before.loss
    assert len(record.before.row_losses) == len(dataset.split("held_out"))
    assert record.train_tokens > 0
    assert record.points[-1].reward_margin is not None or objective == "kto"
    if objective == "dpo":
        assert record.points[0].loss == pytest.approx(LN2, abs=1e-4), "policy and reference agree"
        assert record.before.loss == pytest.approx(LN2, abs=1e-4)
        assert (before.margin, before.accuracy) == (0.0, 0.5)
    # One adapter on disk, not trl's frozen copy of it too:
    assert sorted(path.name for path in adapter.folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert list(live_trained_model(lora, adapter).model.peft_config) == ["default"]


def held_out(held, dataset, reference=None):
    return objective_metrics(
        held.model, dataset.split("held_out"), objective="dpo", beta=0.1, reference=reference,
        batch_size=3, pad_id=held.tokenizer.pad_token_id,
    )  # fmt: skip


def test_the_reference_of_a_fresh_adapter_is_the_base_model(run, preference_config, tmp_path):
    lora, dataset, adapter, record = run(preference_config("dpo"), tmp_path)
    held = live_trained_model(lora, adapter)
    with held.model.disable_adapter():
        base = held_out(held, dataset)
    reference = record.before.rewards.log_probabilities
    for name, values in base.rewards.log_probabilities.items():
        assert reference[name] == pytest.approx(values, abs=1e-3)
    after = held_out(held, dataset, reference)
    assert after.rewards.margin == pytest.approx(record.after.rewards.margin, abs=1e-4)


def test_started_from_an_sft_adapter_the_reference_is_the_sft_policy(
    run, preference_config, make_config, tmp_path
):
    sft = make_config({"train.max_steps": 12, "train.learning_rate": 0.01})
    sft_lora, _, sft_adapter, _ = run(sft, tmp_path / "sft")
    config = preference_config("dpo", {"train.start_from": str(sft_adapter.folder)})
    require_same_shape(starting_adapter(config.train.start_from), config)
    live.release()
    _, dataset, adapter, record = run(config, tmp_path / "dpo")
    assert record.started_from == sft_adapter.digest != adapter.digest
    assert record.points[0].loss == pytest.approx(LN2, abs=1e-4), "as against the SFT policy"

    held = live_trained_model(sft_lora, sft_adapter)
    policy = held_out(held, dataset).rewards.log_probabilities
    with held.model.disable_adapter():
        base = held_out(held, dataset).rewards.log_probabilities
    reference = record.before.rewards.log_probabilities
    assert reference["chosen"] == pytest.approx(policy["chosen"], abs=1e-3)
    assert reference["chosen"] != pytest.approx(base["chosen"], abs=1.0)


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_interrupted_it_resumes_on_the_same_trajectory(
    run, run_interrupted, preference_config, tmp_path, objective
):
    config = preference_config(objective, {"train.max_steps": 8, "train.checkpoint_every": 3})
    _, _, whole_adapter, whole = run(config, tmp_path / "whole")
    live.release()
    _, _, adapter, record = run_interrupted(config, tmp_path / "interrupted", step=5)
    assert record.resumed_from_step == 3
    assert [p.loss for p in record.points] == [p.loss for p in whole.points]
    assert record.before == whole.before
    assert record.after == whole.after
    assert adapter.digest == whole_adapter.digest
