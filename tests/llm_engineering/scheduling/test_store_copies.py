"""ZenML's copies of pruned runs go, unless a version that stays carries them too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from zenml import ArtifactConfig, Model, pipeline, step
from zenml.client import Client
from zenml.enums import ArtifactType

from llm_engineering.errors import RegistryError
from llm_engineering.registry.stages import promote_by_hand
from llm_engineering.registry.versions import ADAPTER_DIGEST, find_version
from llm_engineering.scheduling.store_copies import prune_copies

# Of the kinds that the project's own data and adapters are stored as.
DATASET = ArtifactConfig(name="dataset", artifact_type=ArtifactType.DATA)
ADAPTER = ArtifactConfig(name="adapter", artifact_type=ArtifactType.MODEL)


@step
def prepare(rows: int) -> Annotated[list[int], DATASET]:
    """Stands for the data, which the cache shares among runs."""
    return [rows]


@step(enable_cache=False)
def save(rows: list[int], number: int) -> Annotated[list[int], ADAPTER]:
    """Stands for what each run has of its own."""
    from zenml import get_step_context, link_artifact_to_model, log_metadata

    for artifact in get_step_context().step_run.inputs["rows"]:
        link_artifact_to_model(artifact)
    log_metadata({ADAPTER_DIGEST: str(number)}, infer_model=True)
    return [number]


@pipeline
def run(rows: int, number: int) -> None:
    """Two steps."""
    save(prepare(rows), number)


def start(model: str, number: int, rows: int) -> str:
    name = f"{model}-{number}"
    run.with_options(run_name=name, model=Model(name=model, version=name))(rows, number)
    return name


def files(name: str, artifact: str) -> Path:
    version = Client().list_model_versions(name=f"equals:{name}", hydrate=True).items[0]
    return Path(version.get_artifact(artifact).uri)


@pytest.mark.slow
def test_what_no_other_version_carries_goes_and_the_cache_knows(model):
    rows = int(model.removeprefix("model-"), 16)
    first, second = start(model, 1, rows), start(model, 2, rows)
    assert files(first, "dataset") == files(second, "dataset"), "the cache's"

    assert prune_copies([first]) == 1
    assert not files(first, "adapter").exists()
    assert files(second, "dataset").exists()
    assert files(second, "adapter").exists()
    with pytest.raises(RegistryError, match=f"the adapter of {first} is not in the store any more"):
        promote_by_hand(model, first)
    assert find_version(model, first).number == 1, "the version itself stays"

    assert prune_copies([second]) == 2
    assert not files(second, "dataset").exists()
    third = start(model, 3, rows)
    assert files(third, "dataset").exists(), "made again, not taken from the cache"
    assert prune_copies(["no-such-run"]) == 0
