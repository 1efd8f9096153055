"""A training from data to adapter, in a row, for the tests of what it learns."""

import pytest

from llm_engineering.data.preference import prepare_preferences
from llm_engineering.data.prepare import prepare_data
from llm_engineering.model.finetuning.inject import inject_lora
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.model.finetuning.train import train


@pytest.fixture
def run():
    """Prepare, load, inject and train, whatever the objective."""
    return _run


@pytest.fixture
def interruption():
    """Ends a run between two steps; a kill -9 there leaves the same folder (test_train)."""

    class Interruption(Exception):
        pass

    return Interruption


def _run(config, folder, *, resume="never", on_progress=None):
    objective = config.train.objective
    if objective == "sft":
        dataset = prepare_data(config.data, config.model, seed=0, folder=folder / "data")
    else:
        dataset = prepare_preferences(
            config.data, config.model, objective=objective, seed=0, folder=folder / "data"
        )
    lora = inject_lora(load_model(config.model), config.lora)
    adapter, record = train(
        lora,
        dataset,
        config.train,
        config.evaluate,
        seed=config.run.seed,
        work=folder / "work",
        name="run",
        resume=resume,
        on_progress=on_progress,
    )
    return lora, dataset, adapter, record
