"""The production version on a run's held-out rows, without loading the base model again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.finetuning.record import (
    AdapterFolder,
    ProductionMetrics,
    TrainingRecord,
)
from llm_engineering.model.live import LiveModel
from llm_engineering.model.references import LoraReference

_PRODUCTION = "production"
_REFERENCE = "lora.json"
_VERSION = "version.txt"


@dataclass(frozen=True)
class ProductionAdapter:
    """The adapter of the production version, to be measured beside the run's own."""

    version: str
    lora: LoraReference
    adapter: AdapterFolder

    def write(self, folder: Path) -> None:
        """Write all of it into a new folder, to be read on another host."""
        shutil.copytree(self.adapter.folder, folder)
        (folder / _REFERENCE).write_text(self.lora.model_dump_json(), encoding="utf-8")
        (folder / _VERSION).write_text(self.version, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ProductionAdapter:
        """Read a folder that ``write`` made."""
        lora = LoraReference.model_validate_json((folder / _REFERENCE).read_bytes())
        digest = file_digest(folder / "adapter_model.safetensors")
        version = (folder / _VERSION).read_text(encoding="utf-8")
        return cls(version, lora, AdapterFolder(folder, digest))


def measure_production(
    lora: LoraReference,
    adapter: AdapterFolder,
    production: ProductionAdapter,
    dataset: PreparedDataset,
    record: TrainingRecord,
    *,
    batch_size: int,
) -> ProductionMetrics:
    """Evaluate production's adapter on a data set's held-out rows; the live model is left as it was.

    Args:
        lora: The reference of the run's own adapter.
        adapter: The run's own adapter.
        production: The adapter to evaluate; its base model has the same weights.
        dataset: Its held-out rows are evaluated.
        record: The run's; the loss is of its objective, against its reference model.
        batch_size: Rows in one forward pass.
    """
    from llm_engineering.model.finetuning.train import live_trained_model

    def measure(held: LiveModel) -> ProductionMetrics:
        pad_id = held.tokenizer.pad_token_id
        reference = record.before.rewards
        metrics = objective_metrics(
            held.model,
            rows,
            objective=record.objective,
            beta=record.beta,
            reference=reference.log_probabilities if reference else None,
            batch_size=batch_size,
            pad_id=pad_id,
        )
        return ProductionMetrics(version=production.version, metrics=metrics)

    rows = dataset.split("held_out")
    if lora.settings.bias != "none" or production.lora.settings.bias != "none":
        # Trained biases are the base model's own: the two adapters cannot share one.
        return measure(live_trained_model(production.lora, production.adapter))
    held = live_trained_model(lora, adapter)
    active = held.model.active_adapter
    held.model.load_adapter(str(production.adapter.folder), adapter_name=_PRODUCTION)
    try:
        held.model.set_adapter(_PRODUCTION)
        return measure(held)
    finally:
        held.model.set_adapter(active)
        held.model.delete_adapter(_PRODUCTION)
