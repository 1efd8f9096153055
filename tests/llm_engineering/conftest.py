"""Trainings that are interrupted, and a registered model with versions."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest

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
def interruption():
    """Ends a run between two steps; a kill -9 there leaves the same folder (test_train)."""

    class Interruption(Exception):
        pass

    return Interruption


@pytest.fixture
def run_interrupted(run, interruption):
    """Run, interrupted after ``step`` steps, and resume in a run of its own."""

    def go(config, folder, *, step):
        def interrupt(record):
            if record.steps == step:
                raise interruption

        with pytest.raises(interruption):
            run(config, folder, on_progress=interrupt)
        (folder / "work" / "run").rename(folder / "work" / "before")
        return run(config, folder, resume="required")

    return go
