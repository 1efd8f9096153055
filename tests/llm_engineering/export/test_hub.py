"""Tests of ``llm_engineering.export.hub``; the Hub's client is replaced by one that notes its calls."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from llm_engineering.configuration.export import ExportSettings
from llm_engineering.errors import HubError
from llm_engineering.export.hub import push

pytestmark = pytest.mark.slow

BOTH = ExportSettings(
    merged_16bit=True, hub_repo="acme/questions", hub_merged_repo="acme/questions-merged"
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Every call of the client, with the token it was made with."""
    noted: list[tuple[str, dict[str, Any]]] = []

    class Client:
        def __init__(self, token: str | None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, **options: Any) -> None:
            noted.append(("create", {"repo": repo_id, "token": self.token, **options}))

        def upload_folder(self, **options: Any) -> Any:
            if options["repo_id"].endswith("/refused"):
                raise PermissionError("403 Forbidden: you may not write here\nRequest ID: 1")
            files = sorted(path.name for path in Path(options["folder_path"]).iterdir())
            noted.append(("upload", options | {"files": files}))
            return SimpleNamespace(commit_url=f"https://hub/{options['repo_id']}/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    monkeypatch.setenv("HF_TOKEN", "of-the-environment")
    return noted


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for part, weights in (("adapter", "adapter_model"), ("merged", "model")):
        (tmp_path / "run-1" / part).mkdir(parents=True)
        (tmp_path / "run-1" / part / "README.md").touch()
        (tmp_path / "run-1" / part / f"{weights}.safetensors").touch()
    return tmp_path / "run-1"


def test_adapter_and_merged_model_go_to_repositories_of_their_own(
    calls: list[tuple[str, dict[str, Any]]], output: Path
) -> None:
    assert push(BOTH, output) == {
        "adapter": "https://hub/acme/questions/commit/1",
        "merged": "https://hub/acme/questions-merged/commit/1",
    }

    created = [options for kind, options in calls if kind == "create"]
    uploaded = [options for kind, options in calls if kind == "upload"]
    assert all(one["private"] and one["token"] == "of-the-environment" for one in created)
    assert [one["files"] for one in uploaded] == [
        ["README.md", "adapter_model.safetensors"],
        ["README.md", "model.safetensors"],
    ]
    assert uploaded[0]["commit_message"] == "adapter of run run-1"


def test_nothing_is_pushed_unasked(calls: list[Any], output: Path) -> None:
    assert push(ExportSettings(merged_16bit=True), output) == {}
    assert calls == []


def test_a_refusal_says_what_is_saved_and_how_to_go_on(calls: list[Any], output: Path) -> None:
    with pytest.raises(HubError) as caught:
        push(ExportSettings(hub_repo="acme/refused"), output)

    message = str(caught.value)
    assert "acme/refused was not pushed (PermissionError: 403 Forbidden: you may not" in message
    assert f"the run is saved in {output}" in message
