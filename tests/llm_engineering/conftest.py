"""A registered model with versions, without training any."""

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
