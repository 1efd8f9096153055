"""Save model: everything a run leaves behind, in one folder that appears complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_engineering.configuration.schema import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.references import LoraReference
from llm_engineering.model.tokenizer import load_tokenizer
from llm_engineering.outputs import new_output, remove_work
from llm_engineering.reporting.manifest import make_manifest
from llm_engineering.reporting.model_card import render_model_card
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.run_report import RunReport


@dataclass(frozen=True)
class SavedRun:
    """A run's output folder, and what is written in it."""

    folder: Path
    run: RunReport
    metrics: dict[str, float]
    report: str


def save_model(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraReference,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
    *,
    name: str,
    wall_seconds: float,
) -> SavedRun:
    """Write ``<run.output_dir>/<name>/`` and point ``latest`` at it.

    The folder holds ``adapter/`` (PEFT's format, with tokenizer, chat template and model card),
    ``metrics.json``, ``manifest.json`` and ``report.html``.
    """
    manifest = make_manifest(
        name, config, dataset.summary, lora, adapter, record, wall_seconds=wall_seconds
    )
    run = RunReport(
        name=name,
        config=config,
        summary=dataset.summary,
        lora=lora,
        record=record,
        evaluation=evaluation,
        manifest=manifest,
    )
    figures, report = metrics(lora, record, evaluation, wall_seconds), render_report(run)
    with new_output(config.run.output_dir, name) as folder:
        shutil.copytree(adapter.folder, folder / "adapter")
        tokenizer = load_tokenizer(config.model)
        tokenizer.chat_template = lora.model.chat_template
        tokenizer.save_pretrained(folder / "adapter")
        _write(folder / "adapter" / "README.md", render_model_card(run))
        _write_json(folder / "metrics.json", figures)
        _write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
        _write(folder / "report.html", report)
    remove_work(config.run.output_dir, name, record.resumed_from_run)
    return SavedRun(Path(config.run.output_dir) / name, run, figures, report)


def save_decision(run: RunReport) -> str:
    """Add the promotion gate's decision to a saved run's folder; returns the report with it.

    On a host that does not have the folder, nothing is written.
    """
    report = render_report(run)
    folder = Path(run.config.run.output_dir) / run.name
    if run.promotion is not None and folder.is_dir():
        _write_json(folder / "promotion.json", run.promotion.model_dump(mode="json"))
        _write(folder / "report.html.part", report)
        os.replace(folder / "report.html.part", folder / "report.html")
    return report


def metrics(
    lora: LoraReference, record: TrainingRecord, evaluation: Evaluation, wall_seconds: float
) -> dict[str, float]:
    """The figures of a run by name: losses in nats per token, times in seconds, memory in bytes."""
    before, after = evaluation.before, evaluation.after
    perplexity = {
        "held_out_perplexity_before": before.perplexity,
        "held_out_perplexity_after": after.perplexity,
    }
    return {
        "held_out_loss_before": before.loss,
        "held_out_loss_after": after.loss,
        "held_out_loss_change": evaluation.loss_change,
        **(evaluation.reward_figures or perplexity),
        "held_out_token_accuracy_before": before.token_accuracy,
        "held_out_token_accuracy_after": after.token_accuracy,
        "held_out_tokens": after.tokens,
        "train_loss_first": record.points[0].loss,
        "train_loss_last": record.points[-1].loss,
        "train_steps": record.steps,
        "train_tokens": record.train_tokens,
        "train_seconds": record.train_seconds,
        "tokens_per_second": record.tokens_per_second,
        "wall_seconds": wall_seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
        "trainable_parameters": lora.trainable_parameters,
        "total_parameters": lora.total_parameters,
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
