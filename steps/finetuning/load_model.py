"""Step: load model."""

from typing import Annotated

from zenml import log_metadata, step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.model.finetuning import described, load
from llm_engineering.model.recipes import ModelRecipe


@step
def load_model(
    settings: ModelSettings,
    fingerprints: list[str],
    described_dtype: str | None = None,
    launched: bool = False,
) -> Annotated[ModelRecipe, "base_model"]:
    """Load the base model into this process, or only describe it where others will load it."""
    if described_dtype is None:
        model = load.load_model(settings)
    elif launched:
        model = described.describe_launched_model(settings, dtype=described_dtype)
    else:
        model = load.describe_model(settings, dtype=described_dtype)
    log_metadata(
        metadata={
            "base_model": model.id,
            "architecture": model.architecture,
            "parameters": model.parameters,
            "dtype": model.dtype,
            "quantisation": model.quantisation,
        }
    )
    return model
