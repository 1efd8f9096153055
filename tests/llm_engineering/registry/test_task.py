"""Two unrelated tasks never share a registered model by accident."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from zenml import log_metadata
from zenml.client import Client

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import RegistryError
from llm_engineering.registry import task
from llm_engineering.registry.task import require_same_task, task_figures
from llm_engineering.registry.versions import ADAPTER_DIGEST, TAG, model_name

Task = Callable[..., FinetuningConfig]


@pytest.fixture
def a_task(make_config, tmp_path) -> Task:
    """A configuration of data in a folder ``<where>/data``, whose rows are of a subject."""

    def make(where: str, subject: str, **changes: str) -> FinetuningConfig:
        folder = tmp_path / where / tmp_path.name
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train", "held_out"):
            (folder / f"{name}.jsonl").write_text(
                f'{{"prompt": "{subject}?", "completion": "{name}"}}\n'
            )
        return make_config(
            {
                "data.sources": [{"source": str(folder / "train.jsonl")}],
                "data.held_out": {"source": str(folder / "held_out.jsonl")},
                **changes,
            }
        )

    return make


def register(config: FinetuningConfig) -> None:
    name = model_name(config)
    if not Client().list_models(name=f"equals:{name}").total:
        Client().create_model(name, tags=[TAG])
    version = Client().create_model_version(
        name, f"v{len(Client().list_model_versions(model=name))}"
    )
    log_metadata({ADAPTER_DIGEST: "a", **task_figures(config)}, model_version_id=version.id)


def test_other_data_of_the_same_name_are_refused_with_a_way_out(a_task: Task):
    law, cooking = a_task("law", "law"), a_task("cooking", "cooking")
    require_same_task(law)
    register(law)
    assert model_name(cooking) == model_name(law)
    with pytest.raises(
        RegistryError, match=r"registry\.model: .* has versions of other data \(v0: .*/law/"
    ):
        require_same_task(cooking)
    require_same_task(cooking, "v0")  # the run's own version
    named = a_task("cooking", "cooking", **{"registry.model": model_name(law)})
    require_same_task(named)


def test_data_that_grow_or_move_are_the_same_task(a_task: Task, tmp_path: Path):
    first = a_task("here", "law")
    register(first)
    with open(first.data.sources[0].source, "a") as file:
        file.write('{"prompt": "new?", "completion": "yes"}\n')
    require_same_task(first)
    moved = a_task("there", "law")
    with open(moved.data.sources[0].source, "a") as file:
        file.write('{"prompt": "newer?", "completion": "yes"}\n')
    require_same_task(moved)  # by its held-out rows


def test_a_file_of_the_project_is_the_same_in_every_checkout(make_config, monkeypatch, tmp_path):
    (tmp_path / "a.jsonl").touch()
    config = make_config({"data.sources": [{"source": str(tmp_path / "a.jsonl")}]})
    assert task_figures(config)[task.PLACES][0] == str(tmp_path / "a.jsonl")
    monkeypatch.setattr(task, "ROOT", tmp_path)
    assert task_figures(config)[task.PLACES][0] == "a.jsonl"


def test_versions_that_an_earlier_release_registered_are_let_pass(a_task: Task):
    config = a_task("law", "law")
    name = model_name(config)
    Client().create_model(name, tags=[TAG])
    version = Client().create_model_version(name, "old")
    log_metadata({ADAPTER_DIGEST: "a"}, model_version_id=version.id)
    require_same_task(config)
