"""Tests of ``llm_engineering.export.requirements``: what is refused before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.errors import ConfigError, ExportError
from llm_engineering.export.requirements import require_exports


def test_pushing_needs_a_token_from_the_environment(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({"export.merged_16bit": True, "export.hub_merged_repo": "acme/merged"})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="pushing to acme/merged needs a token"):
        require_exports(config)
    monkeypatch.setenv("HF_TOKEN", "x")
    require_exports(config)


def test_an_adapter_of_a_local_folder_is_not_pushed(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    config = make_config({"export.hub_repo": "acme/adapter"})
    with pytest.raises(
        ConfigError, match=r"export\.hub_repo: the adapter would name .*tiny, a fold"
    ):
        require_exports(config)


def test_nothing_is_merged_into_quantised_weights(
    make_config: Any, tiny_model: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_model, tmp_path / "base")
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(values | {"quantization_config": {"bits": 4}}))
    changes = {"model.id": str(base)}
    require_exports(make_config(changes))
    with pytest.raises(ExportError, match="are quantised on disk"):
        require_exports(make_config(changes | {"export.merged_16bit": True}))
