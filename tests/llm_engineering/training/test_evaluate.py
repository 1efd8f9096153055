"""Tests of ``llm_engineering.training.evaluate``: what is called before is the base model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llm_engineering.model import live
from llm_engineering.model.evaluation.generic import generic_metrics
from llm_engineering.model.evaluation.probe import mean_kl, take_probe
from llm_engineering.model.evaluation.samples import answers, choose_prompts
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.training.evaluate import evaluate

pytestmark = pytest.mark.slow


def test_before_is_the_base_model_and_after_the_adapter_on_it(
    make_config: Any, run: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """Both are read again by plain transformers and PEFT."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from llm_engineering.model.tokenizer import load_tokenizer

    config = make_config({"train.learning_rate": 0.05, "train.max_steps": 8})
    lora, dataset, adapter, record = run(config, tmp_path)
    found = evaluate(lora, adapter, dataset, record, config.evaluate)

    tokenizer = load_tokenizer(config.model)
    held_out, settings = dataset.split("held_out"), config.evaluate

    def said(model: Any) -> tuple[list[str], float]:
        prompts = choose_prompts(held_out, settings.samples, tokenizer)
        stop_ids = frozenset(lora.model.stop_ids)
        texts = answers(
            model, tokenizer, prompts, max_new_tokens=settings.max_new_tokens, stop_ids=stop_ids
        )
        passages = settings.generic_passages
        loss = generic_metrics(model, tokenizer, passages, batch_size=4, max_length=128).loss
        return texts, loss

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    texts, loss = said(base)
    assert [sample.before for sample in found.samples] == texts
    assert found.generic is not None
    assert found.generic.before.loss == pytest.approx(loss, abs=1e-5)
    probe = found.trained_probe
    assert probe is not None
    asked: dict[str, Any] = {"pad_id": tokenizer.pad_token_id, "stop_ids": lora.model.stop_ids}
    bare = take_probe(base, probe.rows, **asked, same_as=probe.probe, answer=False)
    assert probe.effect == pytest.approx(mean_kl(probe.probe, bare), rel=1e-3)

    trained = PeftModel.from_pretrained(base, adapter.folder)
    texts, loss = said(trained)
    assert [sample.after for sample in found.samples] == texts
    assert found.generic.after.loss == pytest.approx(loss, abs=1e-5)
    assert found.generic.after.loss != pytest.approx(found.generic.before.loss, abs=1e-3)
    prompts = choose_prompts(held_out, settings.samples, tokenizer)
    assert [s.key for s in found.samples] == [prompt.key for prompt in prompts]
    assert {s.max_new_tokens for s in found.samples} == {settings.max_new_tokens}
    assert [s.before for s in found.samples] != [s.after for s in found.samples]

    assert probe.tensors is not None  # of memory, by the names of the file
    assert (
        probe.tensors.digests.keys()
        == load_file(adapter.folder / "adapter_model.safetensors").keys()
    )
    assert set(probe.tensors.scaling.values()) == {lora.scaling}


LEARNS = {"train.max_steps": 12, "train.learning_rate": 0.01}


@pytest.fixture
def trained(run: Any, make_config: Any, tmp_path: Path) -> Any:
    """Train; gives configuration, recipe, rows, adapter and record."""

    def trained(**overrides: Any) -> Any:
        live.release()
        config = make_config({**LEARNS, **overrides})
        return config, *run(config, tmp_path)

    yield trained
    live.release()


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
    assert found.trained_probe.effect > 0
    assert found.generic.before.loss != found.generic.after.loss


def test_what_was_evaluated_where_it_was_trained_is_taken_as_it_is(trained):
    config, lora, dataset, adapter, record = trained()
    record.evaluation = evaluate(lora, adapter, dataset, record, config.evaluate)
    live.release()
    nothing = config.evaluate.model_copy(update={"samples": 0})
    assert evaluate(lora, adapter, dataset, record, nothing) is record.evaluation


ANSWERS = {"rows": 5, "max_new_tokens": 8, "batch_size": 2, "scorers": ["rouge_l"]}


def test_both_models_answer_the_same_rows_by_weights_that_are_loaded_once(
    trained, tiny_model, monkeypatch
):
    from transformers import AutoModelForCausalLM

    from llm_engineering.model.evaluation.held_out_answers import answer_rows
    from llm_engineering.model.finetuning import load

    config, lora, dataset, adapter, record = trained(**{"evaluate.answers": ANSWERS})
    held = live_trained_model(lora, adapter)
    monkeypatch.setattr(load, "backend", lambda: pytest.fail("weights are loaded again"))
    state = torch.get_rng_state()
    found = evaluate(lora, adapter, dataset, record, config.evaluate)
    assert torch.equal(torch.get_rng_state(), state), "random numbers were drawn"
    assert found.answers is not None
    assert len(found.answers.rows) == 5
    assert found.answers.generation["max_new_tokens"] == 8

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    asked = config.evaluate.answers
    prompts = choose_prompts(dataset.split("held_out"), 5, held.tokenizer)
    stops = frozenset(lora.model.stop_ids)
    for model, said in (
        (base, [row.before for row in found.answers.rows]),
        (held.model, [row.after for row in found.answers.rows]),
    ):
        assert said == answer_rows(
            model, held.tokenizer, prompts, asked, stop_ids=stops, whose="test"
        )
    assert [row.before for row in found.answers.rows] != [row.after for row in found.answers.rows]
    assert found.answers.figures["score_rouge_l_after"] == pytest.approx(
        sum(found.answers.scores[0].after) / 5
    )


def test_answers_of_elsewhere_are_scored_as_the_configuration_says_now(
    trained, tmp_path, monkeypatch
):
    config, lora, dataset, adapter, record = trained(**{"evaluate.answers": ANSWERS})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score_of_evaluate.py").write_text("def length(*, answer, **o): return len(answer)")
    scorers = ["exact", {"python": "score_of_evaluate:length"}]
    settings = (
        type(config)
        .model_validate(
            config.model_dump() | {"evaluate": {"answers": ANSWERS | {"scorers": scorers}}}
        )
        .evaluate
    )
    there = evaluate(lora, adapter, dataset, record, settings, elsewhere=True)
    assert [one.name for one in there.answers.scores] == ["exact"], "the function is not there"
    record.evaluation = there
    live.release()
    monkeypatch.setattr("llm_engineering.training.evaluate.measure", None)  # no model is needed
    found = evaluate(lora, adapter, dataset, record, settings)
    assert [one.name for one in found.answers.scores] == ["exact", "length"]
    lengths = [float(len(row.after.text)) for row in there.answers.rows]
    assert found.answers.scores[1].after == lengths
