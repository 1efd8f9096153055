"""What one training asks of a device: all that decides its memory and its speed."""

from __future__ import annotations

from pydantic import BaseModel, Field

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.model import Quantisation
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.tokens.audit import LabelAudit
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.planning.shape import AdapterShape, ModelShape, TrainedShape


class Workload(BaseModel):
    """The model's shape, the adapter, the optimisation, and how long its rows are."""

    shape: ModelShape
    adapter: AdapterShape
    dtype: str = Field(description="Type of the frozen weights, resolved.")
    quantisation: Quantisation = Field(description="What the projections are rounded to.")
    lora: LoraSettings
    train: TrainSettings
    evaluate: EvaluateSettings
    longest_row: int = Field(description="Tokens in the longest sequence of a forward pass.")
    mean_row: float = Field(description="Tokens in a sequence, on average.")

    @property
    def sequences_per_row(self) -> int:
        """Sequences that one row puts through the model: two for a pair of answers."""
        return _sequences(self.train)


def configured_workload(config: FinetuningConfig, shape: TrainedShape, dtype: str) -> Workload:
    """The workload of a configuration, before its data is read: every row as long as allowed.

    Args:
        config: What is asked for.
        shape: Of its model and adapter.
        dtype: Type of the frozen weights, resolved.
    """
    return Workload(
        shape=shape.model,
        adapter=shape.adapter,
        dtype=dtype,
        quantisation=config.model.quantisation,
        lora=config.lora,
        train=config.train,
        evaluate=config.evaluate,
        longest_row=config.model.max_seq_length,
        mean_row=config.model.max_seq_length,
    )


def prepared_workload(
    lora: LoraRecipe,
    shape: TrainedShape,
    train: TrainSettings,
    evaluate: EvaluateSettings,
    rows: LabelAudit,
) -> Workload:
    """The workload of an injected model on prepared rows; packed rows are full.

    Args:
        lora: Model and adapter.
        shape: Their shapes.
        train: The optimisation.
        evaluate: Batch size of the held-out evaluations.
        rows: What the audit counted over the training rows.
    """
    full = lora.model.max_seq_length
    return Workload(
        shape=shape.model,
        adapter=shape.adapter,
        dtype=lora.model.dtype,
        quantisation=lora.model.quantisation,
        lora=lora.settings,
        train=train,
        evaluate=evaluate,
        longest_row=full if train.packing else rows.longest_row,
        mean_row=full if train.packing else rows.tokens / max(rows.rows * _sequences(train), 1),
    )


def _sequences(train: TrainSettings) -> int:
    return OBJECTIVES[train.objective].sequences_per_row
