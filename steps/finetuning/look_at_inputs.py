"""Step: look at inputs."""

from typing import Annotated

from zenml import step

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.lineage import look
from llm_engineering.lineage.run_order import RunOrder


@step(enable_cache=False)
def look_at_inputs(
    config: FinetuningConfig, trained_elsewhere: bool
) -> tuple[
    Annotated[list[str], "data_fingerprints"],
    Annotated[list[str], "model_fingerprints"],
    Annotated[list[str], "code_fingerprints"],
    Annotated[list[str], "training_fingerprints"],
    Annotated[list[str], "scoring_fingerprints"],
]:
    """What the cache of the data's, the model's, all other, the training and the scoring must notice."""
    seen = look.look_at_inputs(config, RunOrder.of_this_run(), trained_elsewhere=trained_elsewhere)
    data, model, code = seen.data, seen.model, seen.code
    training, scoring = seen.training, seen.scoring
    return data, model, code, training, scoring
