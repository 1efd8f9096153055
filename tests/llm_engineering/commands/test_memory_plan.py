"""What --dry-run says of memory, with and without a GPU, and for a job's instances."""

from __future__ import annotations

import json
import re

import pytest

from llm_engineering.commands.memory_plan import memory_plan
from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import HardwareError
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.planning import hardware
from llm_engineering.planning.cards import CARDS, GIB
from llm_engineering.planning.device_plans import require_memory

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def config(tmp_path):
    """A configuration of a model of which only config.json is there."""

    def make(model=LLAMA_8B, **train):
        (tmp_path / "config.json").write_text(json.dumps(model))
        return FinetuningConfig.model_validate(
            {
                "model": {"id": str(tmp_path)},
                "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
                "train": {"packing": True, "optimizer": "adamw_8bit", **train},
                "sagemaker": {
                    "instance_types": ["ml.g5.2xlarge"],
                    "role": "arn:aws:iam::123456789012:role/FinetuningJobs",
                    "bucket": "finetuning-jobs",
                },
            }
        )

    return make


@pytest.fixture
def gpu(monkeypatch):
    """This host has a GPU of so many GiB."""

    def have(gib):
        monkeypatch.setattr(hardware, "has_gpu", lambda: True)
        monkeypatch.setattr(hardware, "device_name", lambda: "NVIDIA Test")
        monkeypatch.setattr(hardware, "gpu_capacity_bytes", lambda: int(gib * GIB))
        monkeypatch.setattr(hardware, "resolve_dtype", lambda settings: "bfloat16")

    return have


def test_on_a_gpu_the_parts_and_the_plan_are_shown(config, gpu):
    gpu(CARDS["H100"])
    text = "\n".join(memory_plan(config(), "local"))
    assert text.startswith("# memory (16 rows a step, of at most 2048 tokens)")
    assert "on NVIDIA Test (79.2 GiB): micro-batch 4 x 4, no checkpointing" in text
    assert "base weights                     14.96 GiB" in text
    assert all(f"\n  {card} " in text for card in CARDS)


def test_without_a_gpu_the_cards_are_shown_all_the_same(config, monkeypatch):
    monkeypatch.setattr(hardware, "has_gpu", lambda: False)
    lines = memory_plan(config(), "local")
    assert lines[1] == "  8.03B parameters; 83,886,080 of them in the adapter"
    plan, _, memory = lines[2].partition("; ")
    assert plan == "  on this host, without a GPU: micro-batch 2 x 8, no checkpointing"
    assert re.fullmatch(r"\d+\.\d to \d+\.\d GiB of memory, by the rows' length", memory)
    assert len(lines) == 4 + len(CARDS)


def test_a_job_is_planned_for_its_instances(config):
    pytest.importorskip("boto3", reason="the sagemaker group is not installed")
    lines = memory_plan(config(), "sagemaker")
    assert lines[2].startswith("  ml.g5.2xlarge: micro-batch ")
    assert lines[2].endswith("of 22.0 GiB")


def test_a_model_that_cannot_be_built_is_not_planned(config):
    (line,) = memory_plan(config(model={**LLAMA_8B, "model_type": "unheard-of"}), "local")
    assert line.startswith("# memory: not planned (model.id: transformers ")
    assert "unheard-of" in line


def test_without_pytorch_a_launcher_plans_what_it_knows_exactly(config, monkeypatch):
    with_modules = memory_plan(config(), "sagemaker")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert memory_plan(config(), "sagemaker") == with_modules
    (line,) = memory_plan(config(model={**LLAMA_8B, "model_type": "phi3"}), "sagemaker")
    assert "not planned here (it takes PyTorch to build" in line


def test_a_gpu_that_is_too_small_is_refused_before_weights_are_loaded(config, gpu):
    gpu(CARDS["T4"])
    shape = trained_shape(config().model, config().lora)
    with pytest.raises(HardwareError, match=r"does not fit NVIDIA Test \(14\.6 GiB\)") as error:
        require_memory(config(), shape)  # the folder holds no weights: nothing can have been loaded
    assert "base weights                     14.96 GiB" in str(error.value)
    assert "model.quantisation: nf4" in str(error.value)
    gpu(CARDS["H100"])
    require_memory(config(), shape)
