"""Step: load model."""

from typing import Annotated

from zenml import step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.lineage.metadata import show
from llm_engineering.lineage.run_order import RunOrder
from llm_engineering.model.finetuning import described, load
from llm_engineering.model.recipes import ModelRecipe
from llm_engineering.planning.hardware import resolve_dtype


@step
def load_model(
    settings: ModelSettings,
    trainable_tokens: list[str],
    fingerprints: list[str],
    described_dtype: str | None = None,
) -> Annotated[ModelRecipe, "base_model"]:
    """Load the base model into this process, or only describe it where others will load it.

    ``described_dtype`` is the type of its weights on the host that will; None: on this one.
    """
    order = RunOrder.of_this_run()
    if order.launch is not None and described_dtype is not None:
        model = described.describe_launched_model(
            settings, dtype=described_dtype, tokens=trainable_tokens
        )
    elif described_dtype is None and order.placement.ranks == 1:
        model = load.load_model(settings, trainable_tokens)
    else:
        dtype = described_dtype or resolve_dtype(settings)
        model = load.describe_model(settings, dtype=dtype, tokens=trainable_tokens)
    show(
        "base model",
        {
            "base_model": model.id,
            "architecture": model.architecture,
            "parameters": model.parameters,
            "dtype": model.dtype,
            "quantisation": model.quantisation,
        },
    )
    return model
