"""Save model: everything a run leaves behind, in one folder that appears complete or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import ExportError, FinetuningError, UnprovenError
from llm_engineering.export.exports import ADAPTER, GGUF, MERGED, make_exports, prove_exports
from llm_engineering.model.base_model import file_digest
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.finetuning.adapter_folder import ADAPTER_WEIGHTS
from llm_engineering.model.finetuning.record import AdapterFolder, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe
from llm_engineering.model.tokenizer import load_tokenizer
from llm_engineering.outputs import ANSWERS, keep_unproven, new_output, remove_work, work_folder
from llm_engineering.reporting.manifest import make_manifest
from llm_engineering.reporting.model_card import render_model_card
from llm_engineering.reporting.previous_run import previous_run
from llm_engineering.reporting.report import render_report
from llm_engineering.reporting.row_changes import row_changes
from llm_engineering.reporting.run_report import RunReport

UNPROVEN = "unproven.json"
"""In the folder of an unproven run: the error, and all that a saved run would have been made of."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedRun:
    """A run's output folder, and what is written in it."""

    folder: Path
    run: RunReport
    metrics: dict[str, float]


def save_model(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
    *,
    name: str,
    started: float,
) -> SavedRun:
    """Write ``<run.output_dir>/<name>/`` and point ``latest`` at it, if its exports are proven.

    The folder holds ``adapter/`` (PEFT's format, with tokenizer, chat template and model card),
    ``metrics.json``, ``manifest.json``, ``report.html``, and what ``export`` asks for.

    Args:
        config: The run's configuration.
        dataset: Its data.
        lora: Its model.
        adapter: What it trained.
        record: How.
        evaluation: What that changed, and what every export must say again.
        name: The run's name.
        started: When it started, in seconds since the epoch.

    Raises:
        ExportError: An export cannot be made, or is not what was trained; says in which folder, that
            of the run's name and ``-unproven``, the adapter is kept.
    """
    with new_output(config.run.output_dir, name) as folder:
        shutil.copytree(adapter.folder, folder / ADAPTER)
        tokenizer = load_tokenizer(
            config.model,
            tokens=config.lora.trainable_tokens,
            template=lora.model.chat_template,
        )
        tokenizer.save_pretrained(folder / ADAPTER)
        # PEFT reads none, but this says where answers end to whoever does.
        _write_json(
            folder / ADAPTER / "generation_config.json", {"eos_token_id": list(lora.model.stop_ids)}
        )
        try:
            _require_digest(folder / ADAPTER, adapter)
            parity = _export(config, lora, record, evaluation, folder, name)
        except Exception as error:
            records = {
                "config": config,
                "lora": lora,
                "training_record": record,
                "evaluation": evaluation,
            }
            kept = _keep_unproven(config, folder, name, adapter, records, error)
            where = (
                f"the trained adapter is in {kept / ADAPTER}, unproven, and {UNPROVEN} beside it says "
                "what was found; it is not registered, and latest does not point to it. Mend the "
                "cause and run again: what was trained comes from the cache"
            )
            if isinstance(error, FinetuningError):
                error.args = (f"{error}\n{where}",)
            else:
                logger.error("%s", where)
            raise
        run, figures = describe_run(
            config, dataset, lora, adapter, record, evaluation, parity, name=name, started=started
        )
        manifest = run.manifest
        report = render_report(run)
        for export in filter(Path.is_dir, (folder / ADAPTER, folder / MERGED)):
            card = render_model_card(run, merged=export.name == MERGED)
            _write(export / "README.md", card)
        _write_json(folder / "metrics.json", figures)
        _write_json(folder / "manifest.json", manifest.model_dump(mode="json"))
        if evaluation.answers is not None:
            _write_json(folder / ANSWERS, evaluation.answers.model_dump(mode="json"))
        _write(folder / "report.html", report)
    remove_work(config.run.output_dir, name, *record.continued_runs)
    return SavedRun(Path(config.run.output_dir) / name, run, figures)


def describe_run(
    config: FinetuningConfig,
    dataset: PreparedDataset,
    lora: LoraRecipe,
    adapter: AdapterFolder,
    record: TrainingRecord,
    evaluation: Evaluation,
    parity: list[ParityProof],
    *,
    name: str,
    started: float,
) -> tuple[RunReport, dict[str, float]]:
    """A run's report and figures, from what it left; nothing is written.

    Args:
        config: As in ``save_model``, as are those that follow.
        parity: The proofs of its exports.
    """
    wall_seconds = time.time() - started
    manifest = make_manifest(
        name,
        config,
        dataset.summary,
        lora,
        adapter,
        record,
        parity=parity,
        wall_seconds=wall_seconds,
    )
    figures = metrics(lora, record, evaluation, parity, wall_seconds)
    run = RunReport(
        name=name,
        config=config,
        summary=dataset.summary,
        lora=lora,
        record=record,
        evaluation=evaluation,
        manifest=manifest,
        rows=row_changes(dataset, evaluation),
        previous=previous_run(
            config.run.output_dir, name, manifest.model_dump(mode="json"), figures
        ),
    )
    return run, figures


def _require_digest(folder: Path, adapter: AdapterFolder) -> None:
    found = file_digest(folder / ADAPTER_WEIGHTS)
    if found != adapter.digest:
        raise UnprovenError(
            f"adapter: {adapter.folder / ADAPTER_WEIGHTS} is not the file that training wrote (its "
            f"SHA-256 is {found}, not {adapter.digest})",
            kinds=["adapter"],
        )


def _keep_unproven(
    config: FinetuningConfig,
    folder: Path,
    name: str,
    adapter: AdapterFolder,
    records: Mapping[str, BaseModel],
    error: Exception,
) -> Path:
    """Keep the adapter of a run whose exports failed, and what is needed to look into it.

    Of what was made of the adapter, only that which was found wrong is kept: it can be made again,
    and may be of many gigabytes.
    """
    wrong = error.kinds if isinstance(error, UnprovenError) else frozenset()
    for kind, part in (("merged_16bit", MERGED), ("gguf", GGUF)):
        if kind not in wrong:
            shutil.rmtree(folder / part, ignore_errors=True)
    values = {key: record.model_dump(mode="json") for key, record in records.items()}
    _write_json(
        folder / UNPROVEN,
        {
            "run": name,
            "error": f"{type(error).__name__}: {error}",
            "adapter_digest": adapter.digest,
            **values,
        },
    )
    return keep_unproven(folder, config.run.output_dir, name)


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


def _export(
    config: FinetuningConfig,
    lora: LoraRecipe,
    record: TrainingRecord,
    evaluation: Evaluation,
    folder: Path,
    name: str,
) -> list[ParityProof]:
    """Make the exports and prove them; a remote job did both, on the host that can."""
    if record.job is None:
        exports = make_exports(config.export, lora, folder)
        if evaluation.trained_probe is None:
            return []
        return prove_exports(exports, evaluation.trained_probe, lora)
    asked = {MERGED: config.export.merged_16bit, GGUF: config.export.gguf}
    for part in (part for part, is_asked in asked.items() if is_asked):
        made = work_folder(config.run.output_dir) / name / "job" / part
        if not made.is_dir():
            key = {MERGED: "merged_16bit", GGUF: "gguf"}[part]
            raise ExportError(
                f"export.{key}: the job {record.job.name} trained for an earlier, equal run, "
                f"and its {part} folder is not here; run again with --no-cache, or leave "
                f"export.{key} out"
            )
        shutil.move(made, folder / part)
    return record.job.parity


def metrics(
    lora: LoraRecipe,
    record: TrainingRecord,
    evaluation: Evaluation,
    parity: list[ParityProof],
    wall_seconds: float,
) -> dict[str, float]:
    """The figures of a run by name: losses in nats per token, times in seconds, memory in bytes."""
    before, after = evaluation.before, evaluation.after
    perplexity = {
        "held_out_perplexity_before": before.perplexity,
        "held_out_perplexity_after": after.perplexity,
    }
    figures: dict[str, float] = {
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
    if evaluation.generic is not None:
        figures |= evaluation.generic.figures
    figures |= evaluation.benchmark_figures
    if evaluation.answers is not None:
        figures |= evaluation.answers.figures
    for proof in parity:
        figures[f"parity_{proof.export}_kl"] = proof.mean_kl
        figures[f"parity_{proof.export}_logit_difference"] = proof.largest_difference
    return figures


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
