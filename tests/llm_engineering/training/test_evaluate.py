"""Evaluate: the base model without its adapter against the trained one with it, on the same rows."""

import pytest
import torch

from llm_engineering.model import live
from llm_engineering.model.evaluation import probe as probing
from llm_engineering.model.evaluation.samples import answers, choose_prompts
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.model.finetuning.load import live_base_model
from llm_engineering.training.evaluate import evaluate

pytestmark = pytest.mark.slow

LEARNS = {"train.max_steps": 12, "train.learning_rate": 0.01}


@pytest.fixture
def trained(run, make_config, tmp_path):
    """Train; gives configuration, recipe, rows, adapter and record."""

    def trained(**overrides):
        live.release()
        config = make_config({**LEARNS, **overrides})
        return config, *run(config, tmp_path)

    yield trained
    live.release()


def test_before_is_the_base_model_and_after_the_adapter(trained):
    config, lora, dataset, adapter, record = trained()
    found = evaluate(lora, adapter, dataset, record, config.evaluate)
    assert found.before == record.before
    assert found.after == record.after
    assert found.generic.before.loss != found.generic.after.loss
    assert found.generic.after.rows == config.evaluate.generic_passages
    assert [one.origin for one in found.samples] == [
        row["origin"] for row in (dataset.split("held_out")[i] for i in (0, 6))
    ]
    assert len(found.trained_probe.rows) == config.evaluate.parity_rows
    assert found.trained_probe.effect > 0.001

    # The same by hand: the base model is another one, without any adapter.
    held = live_trained_model(lora, adapter)
    prompts = choose_prompts(dataset.split("held_out"), 2, held.tokenizer)

    def answer(model):
        return answers(
            model, held.tokenizer, prompts, max_new_tokens=config.evaluate.max_new_tokens,
            stop_ids=frozenset(lora.model.stop_ids),
        )  # fmt: skip

    assert [one.after for one in found.samples] == answer(held.model)
    base = live_base_model(lora.model)
    assert [one.before for one in found.samples] == answer(base.model)
    assert [one.before for one in found.samples] != [one.after for one in found.samples]
    bare = probing.take_probe(
        base.model,
        found.trained_probe.rows,
        pad_id=held.tokenizer.pad_token_id,
        stop_ids=lora.model.stop_ids,
        same_as=found.trained_probe.probe,
        answer=False,
    )
    kl = probing.mean_kl(found.trained_probe.probe, bare)
    assert kl == pytest.approx(found.trained_probe.effect, rel=1e-3)


def test_the_trained_model_is_left_as_it_was(trained):
    config, lora, dataset, adapter, record = trained()
    held = live_trained_model(lora, adapter)
    before = {name: one.clone() for name, one in held.model.named_parameters()}
    evaluate(lora, adapter, dataset, record, config.evaluate)
    assert live_trained_model(lora, adapter) is held
    assert all(torch.equal(one, before[name]) for name, one in held.model.named_parameters())
    assert held.model.active_adapters == ["default"]
    assert not any(getattr(m, "_disable_adapters", False) for m in held.model.modules())


def test_what_is_not_asked_for_is_not_made(trained):
    config, lora, dataset, adapter, record = trained()
    nothing = {"samples": 0, "generic_passages": 0, "parity_rows": 0}
    settings = config.evaluate.model_copy(update=nothing)
    found = evaluate(lora, adapter, dataset, record, settings)
    assert (found.samples, found.generic, found.trained_probe) == ([], None, None)


def test_trained_biases_are_not_taken_for_the_base_models(trained):
    """They stay when the adapter is switched off, so the base model is loaded anew."""
    config, lora, dataset, adapter, record = trained(**{"lora.bias": "lora_only"})
    found = evaluate(lora, adapter, dataset, record, config.evaluate)
    assert found.trained_probe.effect is None
    assert found.generic.before.loss != found.generic.after.loss


def test_what_was_evaluated_where_it_was_trained_is_taken_as_it_is(trained):
    config, lora, dataset, adapter, record = trained()
    record.evaluation = evaluate(lora, adapter, dataset, record, config.evaluate)
    live.release()
    nothing = config.evaluate.model_copy(update={"samples": 0})
    assert evaluate(lora, adapter, dataset, record, nothing) is record.evaluation
