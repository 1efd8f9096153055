"""Tokens that train, with each way of training: what is saved is what was measured."""

from __future__ import annotations

from typing import Any

import pytest
from safetensors.torch import load_file

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.errors import LoraError
from llm_engineering.initialisations.adapted_modules import TRAINED_ROWS
from llm_engineering.model import live
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.finetuning.adapter_folder import (
    ADAPTER_WEIGHTS,
    live_trained_model,
    require_same_shape,
)
from llm_engineering.planning import hardware
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.training.production import ProductionAdapter, measure_production

pytestmark = pytest.mark.slow

TOKENS = {"lora.trainable_tokens": ["<|im_start|>"], "train.learning_rate": 0.01}
WAYS: dict[str, dict[str, Any]] = {
    "dora": {"lora.use_dora": True},
    "pissa": {"lora.init": "pissa"},
    "keep_best": {"train.keep_best": True, "train.evaluate_every": 2, "train.checkpoint_every": 2},
    "fp8": {"model.quantisation": "fp8", "model.dtype": "auto"},
    "neftune": {"train.neftune_noise_alpha": 5.0},
    "dpo": {},
    "kto": {},
}


def rows_of(adapter: Any) -> dict[str, Any]:
    tensors = load_file(adapter.folder / ADAPTER_WEIGHTS)
    return {name: one for name, one in tensors.items() if name.endswith(TRAINED_ROWS)}


def held_out(lora: Any, adapter: Any, dataset: Any, record: Any, *, base: bool = False) -> Any:
    """What the adapter on disk says of the held-out rows, or the base model without it."""
    held = live_trained_model(lora, adapter)
    rewards = record.before.rewards

    def measure() -> Any:
        return objective_metrics(
            held.model, dataset.split("held_out"), objective=record.objective, beta=record.beta,
            reference=rewards.log_probabilities if rewards else None, batch_size=4,
            pad_id=held.tokenizer.pad_token_id,
        )  # fmt: skip

    if not base:
        return measure()
    with held.model.disable_adapter():
        return measure()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_saved_is_what_was_measured_and_switched_off_it_is_the_base_model(
    way: str,
    make_config: Any,
    preference_config: Any,
    run: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "what_prevents_quantisation", lambda settings: None)
    changes = {**TOKENS, "train.max_steps": 6, **WAYS[way]}
    preferences = way in ("dpo", "kto")
    config = preference_config(way, changes) if preferences else make_config(changes)

    lora, dataset, adapter, record = run(config, tmp_path)

    base = load_file(f"{config.model.id}/model.safetensors")
    changes = {
        name: float(
            (rows - base[name.split(".", 2)[2].replace(TRAINED_ROWS, ".weight")][1]).abs().max()
        )
        for name, rows in rows_of(adapter).items()
    }
    assert len(changes) == 2, "an embedding and an output layer"
    assert min(changes.values()) > 0.01, "by their gradients, and not by weight decay alone"
    live.release()
    assert held_out(lora, adapter, dataset, record).loss == pytest.approx(
        record.after.loss, rel=1e-4
    )
    without = held_out(lora, adapter, dataset, record, base=True)
    assert without.loss == pytest.approx(record.before.loss, rel=1e-4)
    assert record.after.loss < record.before.loss
    live.release()


def test_an_interrupted_training_goes_on_to_the_same_rows(
    make_config: Any, run: Any, run_interrupted: Any, tmp_path: Any
) -> None:
    config = make_config(TOKENS)
    _, _, whole, _ = run(config, tmp_path / "whole")
    *_, again, record = run_interrupted(config, tmp_path / "two", step=3)
    assert record.resumed_from_step == 2
    assert again.digest == whole.digest
    live.release()


@pytest.mark.parametrize("tied", [False, True])
def test_training_goes_on_from_an_adapter_of_the_same_tokens_alone(
    tied: bool, make_config: Any, run: Any, tmp_path: Any, tiny_model: Any
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "base"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model.config.tie_word_embeddings = tied
    model.tie_weights()
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    of_base = {"model.id": str(base)}
    *_, first, one = run(make_config(of_base | TOKENS), tmp_path / "first")
    start = {**of_base, "train.start_from": str(first.folder)}
    config = make_config({**start, **TOKENS})
    require_same_shape(starting_adapter(str(first.folder)), config)
    *_, second, two = run(config, tmp_path / "second")
    assert two.before.loss == pytest.approx(one.after.loss, rel=1e-5)
    assert second.digest != first.digest
    for tokens in ([], ["<|im_end|>"], ["<|im_start|>", "<|im_end|>"]):
        other = make_config({**start, "lora.trainable_tokens": tokens})
        with pytest.raises(LoraError, match=r"lora.trainable_tokens: .* trained row 1 of the emb"):
            require_same_shape(starting_adapter(str(first.folder)), other)
    live.release()


@pytest.mark.parametrize("whose", ["production's", "the run's", "both"])
def test_production_is_measured_with_its_own_tokens_and_the_run_keeps_its(
    whose: str, make_config: Any, run: Any, tmp_path: Any
) -> None:
    tokens = {"lora.trainable_tokens": ["<|im_start|>", "<|im_end|>"]}
    ours, theirs = whose != "production's", whose != "the run's"
    production = {"lora.r": 8, "train.max_steps": 6, "train.learning_rate": 0.01}
    _, _, other, expected = run(
        make_config({**production, **(TOKENS if theirs else {})}), tmp_path / "production"
    )
    live.release()
    config = make_config({"train.max_steps": 2, **(tokens if ours else {})})
    lora, dataset, adapter, own = run(config, tmp_path / "run")

    version = ProductionAdapter("first", other)
    found = measure_production(lora, adapter, version, dataset, own, EvaluateSettings(samples=0))

    assert found.metrics.row_losses == pytest.approx(expected.after.row_losses, rel=1e-5)
    again = held_out(lora, adapter, dataset, own)
    assert again.row_losses == pytest.approx(own.after.row_losses, rel=1e-6)
    live.release()
