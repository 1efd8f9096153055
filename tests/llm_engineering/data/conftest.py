"""Preparing a configuration's data, for the tests of what becomes of its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.prepare import prepare_data


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., PreparedDataset]:
    """Prepare a configuration's data into a fresh folder."""
    folders = iter(tmp_path / "prepared" / str(number) for number in range(100))

    def prepare_config(config: FinetuningConfig) -> PreparedDataset:
        folder = next(folders)
        return prepare_data(
            config.data, config.model, folder=folder, validates=config.train.validates
        )

    return prepare_config
