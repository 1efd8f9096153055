"""The production version on a run's own rows: its adapter takes turns with the run's."""

import shutil

import pytest
from safetensors.torch import load_file, save_file

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.errors import RegistryError
from llm_engineering.model import live
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.held_out import held_out_metrics
from llm_engineering.model.evaluation.samples import answers, choose_prompts
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_WEIGHTS, live_trained_model
from llm_engineering.model.finetuning.record import AdapterFolder
from llm_engineering.training.production import (
    ProductionAdapter,
    measure_production,
    require_switchable,
)

pytestmark = pytest.mark.slow


SETTINGS = EvaluateSettings(samples=2, max_new_tokens=6)


def answers_of(lora, adapter, dataset):
    """What the live model of an adapter answers to the sample prompts."""
    held = live_trained_model(lora, adapter)
    prompts = choose_prompts(dataset.split("held_out"), SETTINGS.samples, held.tokenizer)
    stop_ids = frozenset(lora.model.stop_ids)
    return answers(held.model, held.tokenizer, prompts, max_new_tokens=6, stop_ids=stop_ids)


@pytest.fixture
def trained(run, make_config, tmp_path):
    """A run's recipe, rows, adapter and record, and a production version of another rank."""
    live.release()
    other = make_config({"lora.r": 8, "train.max_steps": 6, "train.learning_rate": 0.01})
    recipe, rows, theirs, record = run(other, tmp_path / "production")
    said = answers_of(recipe, theirs, rows)
    live.release()
    config = make_config({"train.max_steps": 2})
    lora, dataset, adapter, own = run(config, tmp_path / "run")
    yield lora, dataset, adapter, own, ProductionAdapter("first", theirs), (record, said)
    live.release()


def test_it_has_the_losses_that_it_had_itself_and_the_run_keeps_its_own(trained):
    lora, dataset, adapter, own, production, (theirs, said) = trained
    found = measure_production(lora, adapter, production, dataset, own, SETTINGS)
    assert found.version == "first"
    assert found.metrics.row_losses == pytest.approx(theirs.after.row_losses, rel=1e-5)
    assert found.metrics.loss != pytest.approx(own.after.loss, rel=1e-3)
    assert found.samples == said
    assert found.samples != answers_of(lora, adapter, dataset)
    held = live_trained_model(lora, adapter)
    assert list(held.model.peft_config) == ["default"]
    again = held_out_metrics(
        held.model, dataset.split("held_out"), batch_size=4, pad_id=held.tokenizer.pad_token_id
    )
    assert again.row_losses == pytest.approx(own.after.row_losses, rel=1e-6)


def test_the_runs_own_adapter_comes_back_after_an_error_too(trained, monkeypatch):
    lora, dataset, adapter, own, production, _ = trained

    def fail(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("llm_engineering.training.production.objective_metrics", fail)
    with pytest.raises(ZeroDivisionError):
        measure_production(lora, adapter, production, dataset, own, SETTINGS)
    held = live_trained_model(lora, adapter)
    assert list(held.model.peft_config) == ["default"]
    assert held.model.active_adapters == ["default"]


def test_it_travels_as_a_folder(trained, tmp_path):
    *_, production, _ = trained
    production.write(tmp_path / "sent")
    found = ProductionAdapter.read(tmp_path / "sent")
    assert (found.version, found.adapter.digest) == ("first", production.adapter.digest)


@pytest.mark.parametrize("whose", ["this run", "first"])
def test_trained_biases_cannot_take_turns(trained, tmp_path, whose):
    lora, *_, production, _ = trained
    require_switchable(lora, production)
    if whose == "this run":
        settings = lora.settings.model_copy(update={"bias": "all"})
        lora = lora.model_copy(update={"settings": settings})
    else:
        folder = shutil.copytree(production.adapter.folder, tmp_path / "biased")
        config = folder / "adapter_config.json"
        config.write_text(config.read_text().replace('"bias": "none"', '"bias": "all"'))
        production = ProductionAdapter("first", AdapterFolder(folder, "unread"))
    with pytest.raises(RegistryError, match=f"{whose} trains biases .*promote by hand"):
        require_switchable(lora, production)


def test_another_adapter_gives_other_losses(trained, tmp_path):
    lora, dataset, adapter, own, production, _ = trained
    folder = shutil.copytree(production.adapter.folder, tmp_path / "negated")
    weights = load_file(folder / ADAPTER_WEIGHTS)
    negated = {name: -one if "lora_B" in name else one for name, one in weights.items()}
    save_file(negated, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    other = ProductionAdapter(
        "second", AdapterFolder(folder, file_digest(folder / ADAPTER_WEIGHTS))
    )
    one, two = (
        measure_production(lora, adapter, each, dataset, own, SETTINGS).metrics.loss
        for each in (production, other)
    )
    assert abs(one - two) > 0.05
