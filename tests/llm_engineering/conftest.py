"""Trainings that are interrupted, a registered model with versions, and a run that nobody trained."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.model.base_model import file_digest
from llm_engineering.reporting.manifest import Manifest

AddVersion = Callable[..., str]
MakeRun = Callable[..., Path]


@pytest.fixture
def model() -> str:
    """Name of a model that no other test uses."""
    return f"model-{uuid4().hex[:8]}"


@pytest.fixture
def add_version(model: str) -> AddVersion:
    """Add a version as the save step does; returns its name."""
    from zenml import log_metadata
    from zenml.client import Client

    from llm_engineering.registry.versions import ADAPTER_DIGEST, TAG

    client = Client()
    client.create_model(model, tags=[TAG])

    def add(name: str, **figures: float | str) -> str:
        version = client.create_model_version(model, name)
        log_metadata(metadata={ADAPTER_DIGEST: name, **figures}, model_version_id=version.id)
        return name

    return add


@pytest.fixture
def interruption():
    """Ends a run between two steps; a kill -9 there leaves the same folder (test_train)."""

    class Interruption(Exception):
        pass

    return Interruption


@pytest.fixture
def run_interrupted(run, interruption):
    """Run, interrupted after ``step`` steps, and resume in a run of its own."""

    def go(config, folder, *, step):
        def interrupt(record):
            if record.steps == step:
                raise interruption

        with pytest.raises(interruption):
            run(config, folder, on_progress=interrupt)
        (folder / "work" / "run").rename(folder / "work" / "before")
        return run(config, folder, resume="required")

    return go


@pytest.fixture(scope="session")
def random_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ``adapter/`` as a run leaves it, whose answers are not the base model's."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("talk") / "adapter"
    torch.manual_seed(1)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False),
    )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    stops = {"eos_token_id": [tokenizer.convert_tokens_to_ids("<|im_end|>")]}
    (folder / "generation_config.json").write_text(json.dumps(stops))
    return folder


@pytest.fixture
def a_manifest() -> Callable[..., Manifest]:
    """The manifest of a run of the configured model that was never made."""

    def make(config: FinetuningConfig, **changes: Any) -> Manifest:
        weights = Path(config.model.id) / "model.safetensors"
        values: dict[str, Any] = {
            "run": "one",
            "created": "2026-11-24T21:47:00+00:00",
            "config": config.model_dump(mode="json"),
            "seed": 0,
            "data_digest": "0" * 64,
            "base_model": config.model.id,
            "base_model_revision": None,
            "base_model_digests": {weights.name: file_digest(weights)},
            "adapter_digest": "a" * 64,
            "git_commit": "c" * 40,
            "packages": {"torch": "2.13.0", "peft": "0.21.2"},
            "python": "3.11.9",
            "platform": "Linux",
            "hardware": "A CPU",
            "train_tokens": 1,
            "train_seconds": 1.0,
            "wall_seconds": 1.0,
            "resumed_from_step": None,
        }
        return Manifest(**(values | changes))

    return make


@pytest.fixture
def make_run(
    random_adapter: Path, make_config: Any, a_manifest: Callable[..., Manifest], tmp_path: Path
) -> MakeRun:
    """Make ``outputs/NAME/`` with the adapter and a manifest, and point ``latest`` at it."""

    def make(name: str = "one", **changes: Any) -> Path:
        config = make_config()
        run = tmp_path / "outputs" / name
        (run / "adapter").mkdir(parents=True)
        for file in random_adapter.iterdir():
            os.link(file, run / "adapter" / file.name)
        digest = file_digest(run / "adapter" / "adapter_model.safetensors")
        manifest = a_manifest(config, run=name, adapter_digest=digest)
        values = manifest.model_dump(mode="json") | changes
        (run / "manifest.json").write_text(json.dumps(values))
        latest = run.parent / "latest"
        latest.unlink(missing_ok=True)
        latest.symlink_to(name)
        return run

    return make
