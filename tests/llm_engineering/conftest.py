"""Trainings in a row for the tests of what they learn, and a registered model with versions."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

from llm_engineering.data.prepare import prepare_data
from llm_engineering.model.finetuning.inject import inject_lora
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.registry.starting_adapter import starting_adapter
from llm_engineering.training.run import train

AddVersion = Callable[..., str]


@pytest.fixture
def model() -> str:
    """Name of a model that no other test uses."""
    return f"model-{uuid4().hex[:8]}"


@pytest.fixture
def add_version(model: str) -> AddVersion:
    """Add a version as the save step does; returns its name."""
    from zenml import log_metadata
    from zenml.client import Client

    from llm_engineering.registry.versions import ADAPTER_DIGEST, TAG

    client = Client()
    client.create_model(model, tags=[TAG])

    def add(name: str, **figures: float | str) -> str:
        version = client.create_model_version(model, name)
        log_metadata(metadata={ADAPTER_DIGEST: name, **figures}, model_version_id=version.id)
        return name

    return add


@pytest.fixture
def run():
    """Prepare, load, inject and train: ``run_training``."""
    return run_training


@pytest.fixture
def interruption():
    """Ends a run between two steps; a kill -9 there leaves the same folder (test_train)."""

    class Interruption(Exception):
        pass

    return Interruption


@pytest.fixture
def run_interrupted(interruption):
    """Run, interrupted after ``step`` steps, and resume in a run of its own."""

    def go(config, folder, *, step):
        def interrupt(record):
            if record.steps == step:
                raise interruption

        with pytest.raises(interruption):
            run_training(config, folder, on_progress=interrupt)
        (folder / "work" / "run").rename(folder / "work" / "before")
        return run_training(config, folder, resume="required")

    return go


def run_training(config, folder, *, resume="never", on_progress=None, stop=None):
    """Prepare, load, inject and train in a row, as a remote job does, whatever the objective."""
    dataset = prepare_data(
        config.data,
        config.model,
        objective=config.train.objective,
        folder=folder / "data",
        validates=config.train.validates,
    )
    lora = inject_lora(load_model(config.model), config.lora)
    start_from = config.train.start_from
    adapter, record = train(
        lora,
        dataset,
        config.train,
        config.evaluate,
        seed=config.run.seed,
        work=folder / "work",
        name="run",
        start=starting_adapter(start_from) if start_from else None,
        resume=resume,
        on_progress=on_progress,
        stop=stop,
    )
    return lora, dataset, adapter, record
