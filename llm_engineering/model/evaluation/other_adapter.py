"""Held-out metrics of another adapter of the same base model, without loading the base again."""

from __future__ import annotations

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.evaluation.held_out import HeldOutMetrics, held_out_metrics
from llm_engineering.model.finetuning.record import AdapterFolder
from llm_engineering.model.finetuning.train import live_trained_model
from llm_engineering.model.references import LoraReference

_OTHER = "other"


def other_adapter_metrics(
    lora: LoraReference,
    adapter: AdapterFolder,
    other_lora: LoraReference,
    other: AdapterFolder,
    dataset: PreparedDataset,
    *,
    batch_size: int,
) -> HeldOutMetrics:
    """Evaluate ``other`` on a data set's held-out rows; the live model is left as it was.

    Args:
        lora: The reference of the run's own adapter.
        adapter: The run's own adapter.
        other_lora: The reference of the other one; its base model has the same weights.
        other: The adapter to evaluate.
        dataset: Its held-out rows are evaluated.
        batch_size: Rows in one forward pass.
    """
    rows = dataset.split("held_out")
    if lora.settings.bias != "none" or other_lora.settings.bias != "none":
        # Trained biases are the base model's own: the two adapters cannot share one.
        held = live_trained_model(other_lora, other)
        pad_id = held.tokenizer.pad_token_id
        return held_out_metrics(held.model, rows, batch_size=batch_size, pad_id=pad_id)
    held = live_trained_model(lora, adapter)
    active = held.model.active_adapter
    held.model.load_adapter(str(other.folder), adapter_name=_OTHER)
    try:
        held.model.set_adapter(_OTHER)
        pad_id = held.tokenizer.pad_token_id
        return held_out_metrics(held.model, rows, batch_size=batch_size, pad_id=pad_id)
    finally:
        held.model.set_adapter(active)
        held.model.delete_adapter(_OTHER)
