"""A run to report on, made of small explicit objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.data.summary import DatasetSummary, Repeats, SourceSummary
from llm_engineering.data.tokens.audit import LabelAudit, LabelledPiece
from llm_engineering.export.reload import ExportKind
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.generic import GenericLoss
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.evaluation.parity_proof import ParityProof
from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.model.finetuning.record import HeldOutPoint, TrainingPoint, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe, MatchedTarget, ModelRecipe
from llm_engineering.planning.batch_plan import BatchPlan
from llm_engineering.planning.memory import MemoryEstimate
from llm_engineering.reporting.manifest import Manifest
from llm_engineering.reporting.run_report import RunReport
from llm_engineering.scoring.answers import AnsweredRow, Answers
from llm_engineering.scoring.score import scored

MakeRun = Callable[..., RunReport]

DIGEST = "ab" * 32
BEFORE = HeldOutMetrics(loss=3.5, token_accuracy=0.36, tokens=2034, rows=64)
AFTER = HeldOutMetrics(loss=2.8, token_accuracy=0.41, tokens=2034, rows=64)
STEPS = 40


@pytest.fixture
def make_run() -> MakeRun:
    """Make the run, with fields of RunReport replaced by keyword."""

    def make(**replaced: Any) -> RunReport:
        return replace(_run(), **replaced)

    return make


@pytest.fixture
def run(make_run: MakeRun) -> RunReport:
    """The run as it is."""
    return make_run()


def _run() -> RunReport:
    config = FinetuningConfig.model_validate(
        {
            "model": {"id": "acme/tiny-1b", "revision": "0123abc", "max_seq_length": 512},
            "lora": {"r": 32, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"]},
            "data": {
                "sources": [{"source": "data/train.jsonl"}, {"source": "acme/questions"}],
                "held_out": {"source": "data/held_out.jsonl"},
            },
            "train": {"max_steps": STEPS, "learning_rate": 2e-4},
            "evaluate": {"max_new_tokens": 48},
        }
    )
    lora = LoraRecipe(
        model=ModelRecipe(
            id=config.model.id,
            revision=config.model.revision,
            architecture="LlamaForCausalLM",
            dtype="bfloat16",
            quantisation="none",
            max_seq_length=512,
            chat_template="{{ messages }}",
            stop_ids=(2, 7),
            trust_remote_code=False,
            weight_digests={"model.safetensors": DIGEST},
            parameters=1_000_000,
        ),
        settings=LoraSettings(r=32, lora_alpha=16, target_modules=["q_proj", "down_proj"]),
        matched=(
            MatchedTarget(name="q_proj", modules=3, d_in=64, d_out=96, adapter_parameters=15360),
            MatchedTarget(
                name="down_proj", modules=3, d_in=2048, d_out=64, adapter_parameters=202752
            ),
        ),
        trainable_parameters=218_112,
        total_parameters=1_218_112,
        scaling=0.5,
    )
    record = TrainingRecord(
        points=[
            TrainingPoint(
                step=step,
                loss=3.6 - 0.02 * step,
                learning_rate=2e-4 * (1 - step / STEPS),
                grad_norm=0.8,
                tokens_per_second=1500.0 + step,
            )
            for step in range(1, STEPS + 1)
        ],
        held_out=[HeldOutPoint(step=0, metrics=BEFORE), HeldOutPoint(step=STEPS, metrics=AFTER)],
        steps=STEPS,
        epochs=0.25,
        effective_batch=16,
        plan=BatchPlan(
            micro_batch=2,
            gradient_accumulation=8,
            gradient_checkpointing="none",
            estimate=MemoryEstimate(
                weights=2e9, adapter=1e8, activations=1e9, working=1e8, evaluation=5e8
            ),
        ),
        train_tokens=150_000,
        train_seconds=100.0,
        peak_memory_bytes=2_200_000_000,
        device="One GPU",
    )
    summary = DatasetSummary(
        held_out_digest="4" * 64,
        sources=[
            SourceSummary(source="data/train.jsonl", rows=2620, form="alpaca", used=2600),
            SourceSummary(source="acme/questions", rows=1000),
            SourceSummary(source="data/held_out.jsonl", rows=64),
        ],
        bad_rows=[],
        duplicates=Repeats(),
        leaks=Repeats(),
        train=_audit(rows=3620, tokens=160_000, trained_tokens=96_000),
        held_out=_audit(rows=64, tokens=3646, trained_tokens=2034),
        digest=DIGEST,
    )
    samples = [
        Sample(
            origin="data/held_out.jsonl:1",
            prompt="What does `len` do?",
            reference="It returns the length.\n\n    len([1])  # 1",
            before="It is a function.",
            after="It returns the length.",
        )
    ]
    return RunReport(
        name="tiny-1b-questions-20261124-214700",
        config=config,
        summary=summary,
        lora=lora,
        record=record,
        evaluation=Evaluation(
            before=BEFORE,
            after=AFTER,
            samples=samples,
            generic=GenericLoss(
                before=HeldOutMetrics(loss=3.2, token_accuracy=0.4, tokens=3500, rows=60),
                after=HeldOutMetrics(loss=3.28, token_accuracy=0.39, tokens=3500, rows=60),
            ),
        ),
        manifest=Manifest(
            run="tiny-1b-questions-20261124-214700",
            created="2026-11-24T21:47:00+00:00",
            config=config.model_dump(mode="json"),
            seed=0,
            data_digest=DIGEST,
            base_model=config.model.id,
            base_model_revision=config.model.revision,
            base_model_digests={"model.safetensors": DIGEST},
            adapter_digest="cd" * 32,
            git_commit="0f" * 20,
            packages={"torch": "2.13.0", "peft": "0.21.2"},
            python="3.12.9",
            platform="Linux",
            hardware="One GPU",
            train_tokens=record.train_tokens,
            train_seconds=record.train_seconds,
            wall_seconds=155.2,
            resumed_from_step=None,
            parity=[_proof("adapter", 0.3), _proof("merged_16bit", 0.6)],
        ),
    )


def _proof(export: ExportKind, difference: float) -> ParityProof:
    return ParityProof(
        export=export,
        against="the trained model in memory",
        precision="bfloat16",
        rows=4,
        positions=120,
        largest_difference=difference,
        mean_kl=0.00123,
        tolerated_difference=4.0,
        tolerated_kl=0.015,
        same_answers=3,
        effect=0.88,
    )


def _audit(*, rows: int, tokens: int, trained_tokens: int) -> LabelAudit:
    return LabelAudit(
        rows=rows,
        tokens=tokens,
        trained_tokens=trained_tokens,
        longest_row=168,
        length_bin=7,
        rows_by_length=[0] * 22 + [rows - 1, 1],
        truncated_rows=7,
        stop_tokens=rows,
        example_origin="data/train.jsonl:1",
        example=[
            LabelledPiece(text="<|im_start|>user\nHi\u200b\t\x00", trained=False),
            LabelledPiece(text="Hello<|im_end|>", trained=True),
        ],
    )


WithAnswers = Callable[[Evaluation, list[AnsweredRow]], Evaluation]


@pytest.fixture
def with_answers() -> WithAnswers:
    """An evaluation with the samples and the scored answers of some rows."""
    return _with_answers


def _with_answers(evaluation: Evaluation, rows: list[AnsweredRow]) -> Evaluation:
    samples = [
        Sample(
            origin=row.origin,
            prompt=row.prompt,
            reference=row.reference,
            before=row.before.text,
            after=row.after.text,
        )
        for row in rows
    ]
    settings = AnswersSettings.model_validate({"scorers": ["exact"]})
    answers = scored(Answers(generation=settings.generation, rows=rows), settings)
    return evaluation.model_copy(update={"samples": samples, "answers": answers})
