"""PiSSA on the tiny Llama: where training starts, and what is left of it."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llm_engineering.initialisations.initialisation import Beginning
from llm_engineering.initialisations.pissa import Pissa
from llm_engineering.model import live
from llm_engineering.model.evaluation.held_out import held_out_metrics
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
from llm_engineering.model.finetuning.load import load_model

pytestmark = pytest.mark.slow

PISSA = {"lora.init": "pissa", "lora.r": 4, "lora.lora_alpha": 8, "train.learning_rate": 0.01}
TWELVE = {"train.max_steps": 12}
PATTERNS = {"lora.rank_pattern": {"down_proj": 2}, "lora.alpha_pattern": {"q_proj": 3}}


def frozen(model):
    return {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 40)[None]).logits


def measured(held, dataset):
    rows = dataset.split("held_out")
    return held_out_metrics(held.model, rows, batch_size=4, pad_id=held.tokenizer.pad_token_id)


@pytest.mark.parametrize("patterns", [{}, PATTERNS])
def test_it_starts_from_the_best_approximation_and_gives_the_weights_back(
    make_config, tmp_path, patterns
):
    config = make_config({**PISSA, **patterns})
    model = live_lora_model(inject_lora(load_model(config.model), config.lora)).model
    before, said = frozen(model), logits(model)
    components = Pissa(tmp_path)
    components.begin(model, Beginning(seed=1, checkpoint=None, weight_files=list))

    layers = [m for n, m in model.named_modules() if n.endswith(("q_proj", "down_proj"))]
    ranks = set()
    for layer in layers:
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        rest = layer.get_base_layer().weight
        whole = rest + layer.scaling["default"] * b @ a
        values = torch.linalg.svdvals(whole)
        ranks.add(len(a))
        assert torch.linalg.norm(rest) == pytest.approx(values[len(a) :].norm().item(), rel=1e-3)
    assert ranks == ({4, 2} if patterns else {4})
    assert torch.allclose(logits(model), said, atol=1e-4)

    components.finish(model)
    after = frozen(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.allclose(logits(model), said, atol=1e-4), "nothing was trained"


def test_the_saved_adapter_is_an_ordinary_one_on_the_base_model(run, make_config, tmp_path):
    config = make_config({**PISSA, **PATTERNS, **TWELVE})
    lora, dataset, adapter, record = run(config, tmp_path)
    written = json.loads((adapter.folder / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["init_lora_weights"]) == (8, 16, True)
    assert written["rank_pattern"] == {"down_proj": 4}
    assert record.after.loss < record.before.loss - 0.05

    held = live_trained_model(lora, adapter)
    said = logits(held.model)
    assert measured(held, dataset).loss == record.after.loss
    with held.model.disable_adapter():
        assert measured(held, dataset).loss == pytest.approx(record.before.loss, abs=1e-6)
    base = AutoModelForCausalLM.from_pretrained(config.model.id, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, str(adapter.folder))
    assert torch.allclose(logits(plain), said, atol=1e-4)
    live.release()
    rebuilt = live_trained_model(lora, adapter)
    assert torch.allclose(logits(rebuilt.model), said, atol=1e-5)


def test_it_starts_where_a_fresh_adapter_does_and_goes_elsewhere(run, make_config, tmp_path):
    losses = {}
    for init in ("default", "pissa"):
        _, _, _, record = run(make_config({**PISSA, "lora.init": init}), tmp_path / init)
        losses[init] = [point.loss for point in record.points]
        live.release()
    # The rate is zero in the first step.
    assert losses["pissa"][0] == pytest.approx(losses["default"][0], rel=1e-5)
    assert losses["pissa"][2:] != pytest.approx(losses["default"][2:], rel=1e-4)


@pytest.mark.parametrize("best", [{}, {"train.keep_best": True, "train.evaluate_every": 2}])
def test_resumed_it_gives_the_same_bits(run, run_interrupted, make_config, tmp_path, best):
    config = make_config({**PISSA, **best, "train.max_steps": 6})
    lora, dataset, whole_adapter, whole = run(config, tmp_path / "whole")
    held = live_trained_model(lora, whole_adapter)
    assert measured(held, dataset).loss == whole.after.loss
    live.release()
    _, _, adapter, record = run_interrupted(config, tmp_path / "interrupted", step=5)
    assert record.resumed_from_step == 4
    assert record.held_out == whole.held_out
    ours, theirs = (
        load_file(a.folder / "adapter_model.safetensors") for a in (adapter, whole_adapter)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
