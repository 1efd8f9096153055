"""Steps that do all but compute: what they give is made up, how it goes from one to the next is not."""

from __future__ import annotations

import json
import os
import pkgutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.summary import DatasetSummary
from llm_engineering.data.tokens.audit import LabelAudit
from llm_engineering.errors import DataError
from llm_engineering.export.exports import ADAPTER, GGUF, MERGED
from llm_engineering.lineage.fingerprints import Fingerprints
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.finetuning.checkpoints import (
    mark_complete,
    newest_equal_checkpoint,
    open_work_folder,
)
from llm_engineering.model.finetuning.record import (
    AdapterFolder,
    HeldOutPoint,
    TrainingPoint,
    TrainingRecord,
)
from llm_engineering.model.recipes import LoraRecipe, MatchedTarget, ModelRecipe
from llm_engineering.outputs import new_output
from llm_engineering.registry.decision import Check, Decision
from llm_engineering.reporting.manifest import Manifest
from llm_engineering.scoring.answers import Answers
from llm_engineering.training import save
from llm_engineering.training.complete import CompleteTraining

IDENTITY = {"training": "rehearsed"}
STEPS = 4
BAD = "acme/bad"
"""A source that is refused."""


def install(replace: Callable[[Any, str, Any], None]) -> None:
    """Put these in the place of what computes.

    Args:
        replace: ``setattr``, or pytest's, which undoes it.
    """
    import steps.finetuning  # noqa: F401

    # A step's module hides behind the step, which has its name.
    modules = {
        name: sys.modules[f"steps.finetuning.{name}"] for name in ("prepare_data", "load_model")
    }
    replace(modules["prepare_data"], "prepare", _prepare)
    replace(modules["load_model"], "resolve_dtype", lambda settings: "float32")
    for target, fake in {
        "llm_engineering.lineage.look.take_fingerprints": _fingerprints,
        "llm_engineering.lineage.look.resolve_dtype": lambda settings: "float32",
        "llm_engineering.lineage.look.device_kind": lambda: "cpu",
        "llm_engineering.lineage.run_order.choose_ranks": lambda gpus: 1,
        "llm_engineering.model.finetuning.load.load_model": lambda one, tokens=(): _model(
            one, "float32"
        ),
        "llm_engineering.model.finetuning.load.describe_model": lambda one, dtype, tokens=(): (
            _model(one, dtype)
        ),
        "llm_engineering.model.finetuning.inject.inject_lora": _lora,
        "llm_engineering.model.finetuning.inject.describe_lora": _lora,
        "llm_engineering.lineage.training.alone.train": _train,
        "llm_engineering.lineage.training.train_completely": _train_completely,
        "llm_engineering.lineage.training.production_to_measure": lambda *_: None,
        "llm_engineering.training.evaluate.evaluate": _evaluate,
        "llm_engineering.training.save.save_model": _save,
        "llm_engineering.registry.promotion.promote": _promote,
    }.items():
        owner, _, name = target.rpartition(".")
        replace(pkgutil.resolve_name(owner), name, fake)


def _fingerprints(config: Any) -> Fingerprints:
    return Fingerprints(data="data", model="model", code=str(config.run.output_dir))


def _prepare(data: Any, model: Any, *, folder: Path, **_: Any) -> PreparedDataset:
    if data.sources[0].source == BAD:
        raise DataError(f"{BAD}:1: response is empty")
    folder.mkdir(parents=True, exist_ok=True)
    audit = LabelAudit(
        rows=8, tokens=80, trained_tokens=40, longest_row=10, length_bin=1, rows_by_length=[8],
        truncated_rows=0, stop_tokens=8, example_origin="acme/rows:1", example=[],
    )  # fmt: skip
    summary = DatasetSummary(
        sources=[],
        bad_rows=[],
        train=audit,
        held_out=audit,
        digest="d" * 64,
        held_out_digest="e" * 64,
    )
    return PreparedDataset.write(folder, summary)


def _model(settings: Any, dtype: str) -> ModelRecipe:
    return ModelRecipe(
        id=settings.id, revision=None, architecture="LlamaForCausalLM", dtype=dtype,
        quantisation="none", max_seq_length=settings.max_seq_length, chat_template="{{ messages }}",
        stop_ids=(2,), trust_remote_code=False, weight_digests={"model.safetensors": "f" * 64},
        parameters=1000,
    )  # fmt: skip


def _lora(model: ModelRecipe, settings: LoraSettings) -> LoraRecipe:
    target = MatchedTarget(name="q_proj", modules=1, d_in=8, d_out=8, adapter_parameters=64)
    return LoraRecipe(
        model=model, settings=settings, matched=(target,), trainable_parameters=64,
        total_parameters=1064, scaling=1.0,
    )  # fmt: skip


def _metrics(loss: float) -> HeldOutMetrics:
    return HeldOutMetrics(loss=loss, token_accuracy=0.5, tokens=40, rows=8)


def _record() -> TrainingRecord:
    return TrainingRecord(
        points=[
            TrainingPoint(
                step=step, loss=3.0 - step / 10, learning_rate=0.1, grad_norm=1.0,
                tokens_per_second=10.0,
            )
            for step in range(1, STEPS + 1)
        ],
        held_out=[
            HeldOutPoint(step=0, metrics=_metrics(3.0)),
            HeldOutPoint(step=STEPS, metrics=_metrics(2.0)),
        ],
        steps=STEPS, train_tokens=400, train_seconds=4.0, peak_memory_bytes=10**9, device="a CPU",
    )  # fmt: skip


def _adapter(folder: Path) -> AdapterFolder:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return AdapterFolder(folder, "a" * 64)


def _train(
    lora: Any, dataset: Any, *_: Any, work: Path, name: str, on_progress: Any, **__: Any
) -> Any:
    record = _record()
    on_progress(record)
    return _adapter(work / name / "adapter"), record


def _train_completely(
    config: Any, dataset: Any, *, run: str, work: Path, name: str, checkpoints: Any, require: Any,
    on_progress: Any, **_: Any,
) -> CompleteTraining:  # fmt: skip
    model = _model(config.model, "bfloat16" if config.model.dtype == "auto" else config.model.dtype)
    lora, record = _lora(model, config.lora), _record()
    require(lora)
    checkpoints.bring(work, name, IDENTITY, others=False)
    found = newest_equal_checkpoint(work / name, IDENTITY)
    with open_work_folder(work / name, IDENTITY), checkpoints.keeping(work / name):
        if found is not None:
            record.resumed_from_step, record.resumed_from_run = found.step, name
        else:
            folder = work / name / "checkpoints" / "checkpoint-2"
            folder.mkdir(parents=True)
            (folder / "state").write_bytes(b"state")
            mark_complete(folder)
            if os.environ.get("REHEARSED_DEATH"):
                time.sleep(60)  # until it is killed
    on_progress(record)
    evaluation = _evaluation(record)
    adapter = _adapter(work / name / "adapter")
    saved = _save(config, dataset, lora, adapter, record, evaluation, name=run, started=time.time())
    return CompleteTraining(lora, adapter, record, evaluation, saved)


def _evaluate(lora: Any, adapter: Any, dataset: Any, record: Any, settings: Any) -> Evaluation:
    if record.evaluation is not None:
        return record.evaluation
    return _evaluation(record)


def _evaluation(record: Any) -> Evaluation:
    answers = Answers(generation={"temperature": 0.0, "max_new_tokens": 8}, rows=[])
    return Evaluation(before=record.before, after=record.after, samples=[], answers=answers)


def _save(
    config: Any, dataset: Any, lora: Any, adapter: Any, record: Any, evaluation: Any, *,
    name: str, started: float,
) -> save.SavedRun:  # fmt: skip
    proof = ParityProof(
        export="adapter", against="memory", precision="float32", rows=1, positions=1,
        largest_difference=0.0, mean_kl=0.0, tolerated_difference=1.0, tolerated_kl=1.0,
        same_answers=1, effect=1.0,
    )  # fmt: skip
    run, metrics = save.describe_run(
        config, dataset, lora, adapter, record, evaluation, [proof], name=name, started=started
    )
    with new_output(config.run.output_dir, name) as folder:
        _adapter(folder / ADAPTER)
        (folder / ADAPTER / "README.md").write_text("card")
        for part, wanted in ((MERGED, config.export.merged_16bit), (GGUF, config.export.gguf)):
            if wanted:
                (folder / part).mkdir()
                (folder / part / "model.safetensors").write_bytes(part.encode())
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "manifest.json").write_text(run.manifest.model_dump_json())
        (folder / "report.html").write_text("report")
    return save.SavedRun(Path(config.run.output_dir) / name, run, metrics)


def _promote(model: str, version: str, *_: Any, parity: Any, **__: Any) -> Decision:
    from llm_engineering.registry.stages import promote_if_unchallenged

    promote_if_unchallenged(model, version, expected=None, reason="rehearsed")
    checks = [Check(name="parity", passed=True, detail=f"{one.export}: proven") for one in parity]
    return Decision(model=model, version=version, promoted=True, reason="rehearsed", checks=checks)


def manifest(folder: Path) -> Manifest:
    """The manifest of a run's folder."""
    return Manifest.model_validate_json((folder / "manifest.json").read_bytes())
