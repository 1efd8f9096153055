"""Which preparation of the data an objective takes."""

from __future__ import annotations

from pathlib import Path

from llm_engineering.configuration.schema import DataSettings, ModelSettings, Objective
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.preference import prepare_preferences
from llm_engineering.data.prepare import prepare_data


def prepare_for(
    objective: Objective, data: DataSettings, model: ModelSettings, *, seed: int, folder: Path
) -> PreparedDataset:
    """Turn the configured sources into the two splits that ``train.objective`` trains on.

    Raises:
        DataError: As ``prepare_data``, or ``prepare_preferences``.
    """
    if objective == "sft":
        return prepare_data(data, model, seed=seed, folder=folder)
    return prepare_preferences(data, model, objective=objective, seed=seed, folder=folder)
