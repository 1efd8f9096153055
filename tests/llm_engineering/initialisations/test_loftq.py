"""LoftQ on the tiny Llama, its weights rounded to a coarse grid in place of NF4, which needs a GPU."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.data.prepare import prepare_data
from llm_engineering.errors import LoraError
from llm_engineering.initialisations.adapted_modules import adapted_modules
from llm_engineering.initialisations.initialisation import Beginning
from llm_engineering.initialisations.loftq import LoftQ
from llm_engineering.model import live
from llm_engineering.model.base_model import model_folder, weight_files
from llm_engineering.model.evaluation.held_out import held_out_metrics
from llm_engineering.model.finetuning.adapter_folder import live_trained_model
from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
from llm_engineering.model.finetuning.load import live_base_model, load_model
from llm_engineering.training.run import train

pytestmark = pytest.mark.slow

LOFTQ = LoraSettings(r=4, lora_alpha=2, rank_pattern={"down_proj": 2}, init="loftq")


def rounded(config):
    """A fresh adapter on weights that are multiples of 0.05."""
    reference = load_model(config.model)
    with torch.no_grad():
        for name, parameter in live_base_model(reference).model.named_parameters():
            if name.endswith("_proj.weight"):
                parameter.copy_((parameter / 0.05).round() * 0.05)
    lora = inject_lora(reference, LOFTQ)
    return lora, live_lora_model(lora)


def errors(model, weights):
    """By adapted module: what is left of the rounding's error, and the least that its rank allows."""
    found = {}
    for name, layer, adapter in adapted_modules(model):
        whole = weights[name.removeprefix("base_model.model.") + ".weight"].float()
        lacking = whole - layer.get_base_layer().weight
        a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        left = torch.linalg.norm(lacking - layer.scaling[adapter] * b @ a).item()
        found[name] = left, torch.linalg.svdvals(lacking)[len(a) :].norm().item()
    return found


def start(model, folder):
    beginning = Beginning(seed=1, checkpoint=None, weight_files=lambda: weight_files(folder))
    LoftQ(folder).begin(model, beginning)


@pytest.fixture
def folder(make_config):
    return model_folder(make_config({}).model, weights=True)


def test_the_adapter_makes_up_for_the_error_as_far_as_its_rank_allows(make_config, folder):
    _, held = rounded(make_config({}))
    frozen = {n: p.clone() for n, p in held.model.named_parameters() if not p.requires_grad}
    start(held.model, folder)
    found = errors(held.model, load_file(folder / "model.safetensors"))
    assert len(found) == 14
    for left, least in found.values():
        assert 0 < left == pytest.approx(least, rel=1e-3)
    after = dict(held.model.named_parameters())
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)


def test_training_starts_there_and_the_base_model_stays_the_quantised_one(
    make_config, folder, tmp_path
):
    config = make_config({"train.max_steps": 3, "train.learning_rate": 1e-12})
    dataset = prepare_data(config.data, config.model, folder=tmp_path / "data")
    lora, _ = rounded(config)
    adapter, record = train(
        lora, dataset, config.train, config.evaluate, seed=0, work=tmp_path / "work", name="run"
    )
    held = live_trained_model(lora, adapter)
    found = errors(held.model, load_file(folder / "model.safetensors"))
    assert all(left == pytest.approx(least, rel=1e-3) for left, least in found.values())
    with held.model.disable_adapter():
        quantised = held_out_metrics(
            held.model, dataset.split("held_out"), batch_size=4,
            pad_id=held.tokenizer.pad_token_id,
        )  # fmt: skip
    assert record.before.loss == pytest.approx(quantised.loss, abs=1e-6)
    assert record.after.loss != pytest.approx(record.before.loss, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.popitem(), "hold no model"),
        (lambda w: w.update({k: v.flatten() for k, v in w.items()}), "quantised on disk"),
    ],
)
def test_files_that_are_not_the_models_are_refused(make_config, folder, tmp_path, change, says):
    weights = {
        name: tensor.clone()
        for name, tensor in load_file(folder / "model.safetensors").items()
        if "_proj" in name
    }
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    _, held = rounded(make_config({}))
    with pytest.raises(LoraError, match=says):
        start(held.model, tmp_path)
    live.release()


def test_resumed_it_leaves_the_adapter_as_the_checkpoint_has_it(make_config, folder, tmp_path):
    _, held = rounded(make_config({}))
    trained = {
        name: torch.full_like(parameter, 0.25)
        for name, parameter in held.model.named_parameters()
        if "lora_" in name
    }
    held.model.load_state_dict(trained, strict=False)
    resumed = Beginning(
        seed=1, checkpoint=tmp_path / "checkpoint-4", weight_files=lambda: weight_files(folder)
    )
    LoftQ(folder).begin(held.model, resumed)
    now = dict(held.model.named_parameters())
    assert len(trained) == 28
    assert all(torch.equal(now[name], value) for name, value in trained.items())
    live.release()
