"""The settings and the plan reach what they are about: optimizer, gradients, recomputation, precision."""

import pytest
import torch
from transformers import TrainerCallback

from llm_engineering.data.prepare import prepare_data
from llm_engineering.errors import TrainingError
from llm_engineering.model import live
from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.model.finetuning.trainer import make_trainer
from llm_engineering.planning.batch_plan import BatchPlan

pytestmark = pytest.mark.slow


@pytest.fixture
def make(make_config, tmp_path):
    """Make the trainer of a configuration and a kind of checkpointing; two forward passes a step."""

    def make(overrides=None, checkpointing="none"):
        live.release()
        config = make_config({"train.max_steps": 2, **(overrides or {})})
        dataset = prepare_data(config.data, config.model, objective="sft", folder=tmp_path / "data")
        lora = inject_lora(load_model(config.model), config.lora)
        plan = BatchPlan(
            micro_batch=2, gradient_accumulation=2, gradient_checkpointing=checkpointing
        )
        held = live_lora_model(lora)
        rows, folder = dataset.split("train"), tmp_path / "run" / "checkpoints"
        return make_trainer(held, rows, lora, config.train, plan, 0, folder), held.model

    yield make
    live.release()


@pytest.mark.parametrize(("kind", "passes"), [("none", 1), ("plain", 2), ("unsloth", 2)])
def test_a_plan_that_recomputes_goes_through_a_layer_twice(make, kind, passes):
    trainer, model = make(checkpointing=kind)
    seen = []
    layer = model.get_base_model().model.layers[1].mlp
    layer.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    trainer.train()
    assert len(seen) == passes * 2 * 2


def test_weight_decay_is_the_configured_one(make):
    trainer, _ = make({"train.weight_decay": 0.25, "train.learning_rate": 0.01})
    trainer.train()
    decays = {group["weight_decay"] for group in trainer.optimizer.param_groups if group["params"]}
    assert decays == {0.25}


class Norms(TrainerCallback):
    """The gradient's norm as the optimizer gets it."""

    def __init__(self):
        self.found = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        squares = [p.grad.square().sum() for p in model.parameters() if p.grad is not None]
        self.found.append(float(torch.stack(squares).sum().sqrt()))


def test_gradients_are_clipped_at_the_configured_norm(make):
    norms = {}
    for limit in (1e-3, 1e3):
        trainer, _ = make({"train.max_grad_norm": limit})
        callback = Norms()
        trainer.add_callback(callback)
        trainer.train()
        norms[limit] = callback.found
    assert norms[1e-3] == pytest.approx([1e-3] * 2, rel=1e-3)
    assert min(norms[1e3]) > 2e-3, "these gradients are larger by themselves"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_computes_in_the_type_of_the_weights(make, dtype):
    trainer, _ = make({"model.dtype": dtype})
    assert trainer.accelerator.mixed_precision == {"float32": "no", "bfloat16": "bf16"}[dtype]


def test_a_trainer_that_would_compute_in_another_type_is_refused(make, monkeypatch):
    monkeypatch.setattr(
        "accelerate.Accelerator.mixed_precision", property(lambda self: "bf16"), raising=False
    )
    with pytest.raises(TrainingError, match=r"would compute in bfloat16, not in float32"):
        make()


def test_prepared_rows_are_not_prepared_again(make, tmp_path):
    trainer, _ = make()
    assert trainer.train_dataset.column_names == ["input_ids", "labels"]
    assert not list((tmp_path / "data").rglob("cache-*.arrow")), "nor copied beside themselves"
