"""A small recipe, and what a job leaves of a training of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.held_out import HeldOutMetrics
from llm_engineering.model.finetuning.record import HeldOutPoint, TrainingRecord
from llm_engineering.model.recipes import LoraRecipe, MatchedTarget, ModelRecipe

BEFORE = HeldOutMetrics(loss=3.5, token_accuracy=0.36, tokens=2034, rows=64)
AFTER = HeldOutMetrics(loss=2.8, token_accuracy=0.41, tokens=2034, rows=64)


@pytest.fixture
def recipe() -> LoraRecipe:
    """A recipe of a local model folder."""
    return LoraRecipe(
        model=ModelRecipe(
            id="/models/tiny",
            revision=None,
            architecture="LlamaForCausalLM",
            dtype="bfloat16",
            quantisation="none",
            max_seq_length=512,
            chat_template="{{ messages }}",
            stop_ids=(2, 7),
            trust_remote_code=False,
            weight_digests={"model.safetensors": "ab" * 32},
            parameters=1_000_000,
        ),
        settings=LoraSettings(r=8, lora_alpha=16, target_modules=["q_proj"]),
        matched=(
            MatchedTarget(name="q_proj", modules=3, d_in=64, d_out=96, adapter_parameters=3840),
        ),
        trainable_parameters=3840,
        total_parameters=1_003_840,
        scaling=2.0,
    )


@pytest.fixture
def left_by_a_job(recipe, tmp_path):
    """Make the model folder of a job: ``left_by_a_job(tmp_path / "model")``.

    ``arranged`` is called with the folder before its inventory is written.
    """
    import json

    from llm_engineering.sagemaker.model_archive import write_inventory

    def make(
        folder: Path, weights=b"weights" * 100, arranged=lambda folder: None, **manifest: object
    ) -> Path:
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "adapter_config.json").write_text("{}")
        (folder / "adapter" / "adapter_model.safetensors").write_bytes(weights)
        (folder / "records").mkdir()
        record = TrainingRecord(
            held_out=[HeldOutPoint(step=0, metrics=BEFORE), HeldOutPoint(step=4, metrics=AFTER)]
        )
        evaluation = Evaluation(before=BEFORE, after=AFTER, samples=[])
        for name, value in {
            "lora": recipe,
            "training_record": record,
            "evaluation": evaluation,
        }.items():
            (folder / "records" / f"{name}.json").write_text(value.model_dump_json())
        values = {
            "adapter_digest": hashlib.sha256(weights).hexdigest(),
            "packages": {"torch": "2.9.0"},
            "python": "3.12",
            "platform": "Linux",
            **manifest,
        }
        (folder / "manifest.json").write_text(json.dumps(values))
        arranged(folder)
        write_inventory(folder)
        return folder

    return make
