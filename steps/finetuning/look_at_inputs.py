"""Step: look at inputs; the first one of a run that an orchestrator starts by its own schedule."""

from typing import Annotated

from zenml import step

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.lineage.fingerprints import take_fingerprints


@step(enable_cache=False)
def look_at_inputs(
    config: FinetuningConfig,
) -> tuple[
    Annotated[list[str], "data_fingerprints"],
    Annotated[list[str], "model_fingerprints"],
    Annotated[list[str], "code_fingerprints"],
    Annotated[list[str], "training_fingerprints"],
]:
    """What the cache of the data's, the model's, all other and the training step must notice."""
    now = take_fingerprints(config)
    data, model, code = [now.data, now.model, now.code], [now.model, now.code], [now.code]
    training = [now.start, now.code]
    return data, model, code, training
