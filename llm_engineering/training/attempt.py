"""One try at a training, as a small value: this process can run it, or the ranks of several."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.model.finetuning.checkpoints import Checkpoint
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.planning.batch_plan import BatchPlan


class Attempt(BaseModel):
    """What is trained, how, and from where."""

    model_config = ConfigDict(extra="forbid")

    lora: LoraRecipe
    dataset: Path = Field(description="Folder of the prepared data.")
    settings: TrainSettings
    evaluate: EvaluateSettings
    seed: int = Field(description="Of the data order and of dropout.")
    start: AdapterFolder | None = Field(description="Adapter to start from; None: a fresh one.")
    plan: BatchPlan = Field(description="How each rank's share of a step goes through its device.")
    candidates: list[BatchPlan] = Field(
        [], description="Plans to go over to after a measured step, the fastest first."
    )
    checkpoint: Checkpoint | None = Field(description="What to go on from.")
    record: TrainingRecord = Field(description="The course so far; training adds to it.")
    folder: Path = Field(description="The run's work folder.")

    @property
    def adapter(self) -> Path:
        """The folder that receives the trained adapter."""
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        """The folder that receives checkpoints."""
        return self.folder / "checkpoints"
