"""A tiny base model with adapters of every kind, made by plain PEFT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

MakeAdapter = Callable[..., Path]
TARGETS = ["q_proj", "v_proj", "down_proj"]


def fill(model: Any, seed: int = 0) -> None:
    """Give every trainable tensor values that change what the model says."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator) * 0.5
        if "magnitude" in name:
            noise = parameter.data * (1 + noise)
        parameter.data = noise.to(parameter.dtype)


@pytest.fixture(scope="session")
def make_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    """Make an adapter folder by ``peft.LoraConfig`` options; ``base`` is another base model."""

    def make(base: Path = tiny_model, **options: Any) -> Path:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        values = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS, "task_type": "CAUSAL_LM"}
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = get_peft_model(model, LoraConfig(**(values | options)))
        fill(model)
        folder = tmp_path_factory.mktemp("adapter")
        model.save_pretrained(str(folder))
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def adapter(make_adapter: MakeAdapter) -> Path:
    """A plain LoRA adapter."""
    return make_adapter()
