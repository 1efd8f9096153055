"""The production version on a run's held-out rows, without loading the base model again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import LoraError, RegistryError
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.evaluation.samples import answers, choose_prompts
from llm_engineering.model.finetuning.adapter_folder import (
    ADAPTER_WEIGHTS,
    differing_settings,
    live_trained_model,
    peft_settings,
)
from llm_engineering.model.finetuning.backend import backend
from llm_engineering.model.finetuning.record import (
    AdapterFolder,
    ProductionMetrics,
    TrainingRecord,
)
from llm_engineering.model.recipes import LoraRecipe

_VERSION = "version.txt"


@dataclass(frozen=True)
class ProductionAdapter:
    """The adapter of the production version, to be measured beside the run's own."""

    version: str
    adapter: AdapterFolder

    def write(self, folder: Path) -> None:
        """Write all of it into a new folder, to be read on another host."""
        shutil.copytree(self.adapter.folder, folder)
        (folder / _VERSION).write_text(self.version, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ProductionAdapter:
        """Read a folder that ``write`` made."""
        digest = file_digest(folder / ADAPTER_WEIGHTS)
        version = (folder / _VERSION).read_text(encoding="utf-8")
        return cls(version, AdapterFolder(folder, digest))


def require_switchable(lora: LoraRecipe, production: ProductionAdapter) -> None:
    """Two adapters can take turns on one base model only if neither trained its biases.

    Raises:
        RegistryError: One of the two did.
    """
    theirs = peft_settings(production.adapter).get("bias", "none")  # PEFT's own default
    for name, bias in (("this run", lora.settings.bias), (production.version, theirs)):
        if bias != "none":
            raise RegistryError(
                f"{name} trains biases (lora.bias: {bias}), which belong to the base model and are "
                "not switched with the adapter; keep the held-out rows (data.held_out.source), or "
                "promote by hand (--promote)"
            )


def measure_production(
    lora: LoraRecipe,
    adapter: AdapterFolder,
    production: ProductionAdapter,
    dataset: PreparedDataset,
    record: TrainingRecord,
    settings: EvaluateSettings,
) -> ProductionMetrics:
    """Evaluate production's adapter on a data set's held-out rows; the live model is left as it was.

    It answers the sample prompts too, since it was loaded: those that it was saved with are others.

    Args:
        lora: The recipe of the run's own adapter.
        adapter: The run's own adapter.
        production: The adapter to evaluate; its base model has the same weights.
        dataset: Its held-out rows are evaluated.
        record: The run's; the loss is of its objective, against its reference model.
        settings: Rows in one forward pass, sample prompts, and how long an answer may be.

    Raises:
        LoraError: The weights are shared by GPUs, and production's adapter is of another shape.
    """
    live_model = live_trained_model(lora, adapter)
    with _switched(live_model.model, lora, production):
        reference, held_out = record.before.rewards, dataset.split("held_out")
        metrics = objective_metrics(
            live_model.model,
            held_out,
            objective=record.objective,
            beta=record.beta,
            reference=reference.log_probabilities if reference else None,
            batch_size=settings.batch_size,
            pad_id=live_model.tokenizer.pad_token_id,
        )
        samples = answers(
            live_model.model,
            live_model.tokenizer,
            choose_prompts(held_out, settings.samples, live_model.tokenizer),
            max_new_tokens=settings.max_new_tokens,
            stop_ids=frozenset(lora.model.stop_ids),
        )
    return ProductionMetrics(version=production.version, metrics=metrics, samples=samples)


@contextmanager
def _switched(model: Any, lora: LoraRecipe, production: ProductionAdapter) -> Iterator[None]:
    # PEFT holds adapters of parameters (a mixture's experts) beside each other only where they are the
    # same parameters'.
    if not backend().takes_adapters or lora.targets.parameters:
        wrong = differing_settings(production.adapter, lora.settings, lora.targets)
        if wrong:
            raise LoraError(f"{production.version} is of another shape: {'; '.join(wrong)}")
    with backend().other_adapter(model, production.adapter.folder):
        yield
