"""What the train step is told beside what decides its result: none of it trains again."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from llm_engineering.configuration.finetuning import FinetuningConfig

ORDER = "train_order"
"""Its name among a ZenML step's extra values, which the cache passes over."""


class TrainOrder(BaseModel):
    """How the result comes about; ``deciding_settings`` says what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: FinetuningConfig
    registered_as: str = Field(description="Name of the ZenML model that a version is added to.")
    elsewhere: bool = Field(
        description="Whether the step has a host of its own: it then does all that needs the model."
    )
