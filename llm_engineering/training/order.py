"""What the train step is told beside what decides its result: none of it trains again."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.distributed.placement import HERE, Placement
from llm_engineering.training.run import Resume

ORDER = "order"
"""Its name among a ZenML step's extra values, which the cache passes over."""


class TrainOrder(BaseModel):
    """How the result comes about, and where; ``deciding_settings`` says what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: TrainSettings
    evaluate: EvaluateSettings
    output_dir: str
    resume: Resume
    registered_as: str
    placement: Placement = HERE
