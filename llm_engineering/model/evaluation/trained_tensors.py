"""The trained tensors of a model in memory, as digests: what the files of an export must hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from llm_engineering.initialisations.adapted_modules import (
    TRAINED_ROWS,
    adapted_modules,
    trained_rows,
)

_OF_AN_ADAPTER = (".lora_", TRAINED_ROWS)


class TrainedTensors(BaseModel):
    """An adapter's tensors, and how much of each module's ``B A`` counts."""

    digests: dict[str, str] = Field(
        description="SHA-256 of each trained tensor's shape and 32-bit values, by its name in "
        "adapter_model.safetensors. With lora.bias, of the trained biases too."
    )
    scaling: dict[str, float] = Field(
        description="Factor on B A of each adapted module, by the module's name in the PEFT model."
    )
    token_rows: dict[str, list[int]] = Field(
        default_factory=dict,
        description="Rows that were trained of a module's matrix, by the module's name in the PEFT model.",
    )


def trained_tensors(model: Any, whole: Mapping[str, Any] | None = None) -> TrainedTensors:
    """The digests of what was trained.

    Args:
        model: A PEFT model with one active adapter.
        whole: The trained parameters by name, where the model holds only a part of each.
    """
    if whole is None:
        whole = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adapter = model.active_adapter
    return TrainedTensors(
        digests={name_in_file(name, adapter): digest(p.detach()) for name, p in whole.items()},
        scaling=scalings(model),
        token_rows=trained_rows(model),
    )


def is_of_adapter(name: str) -> bool:
    """Whether a parameter is an adapter's own; a trained bias is the base model's."""
    return any(part in name for part in _OF_AN_ADAPTER)


def scalings(model: Any) -> dict[str, float]:
    """The factor on ``B A`` of each adapted module of a PEFT model, by name."""
    return {name: float(layer.scaling[a]) for name, layer, a in adapted_modules(model)}


def adapter_names(model: Any) -> list[str]:
    """Names in the adapter's file of the tensors that a PEFT model computes its adapter with."""
    adapter = model.active_adapter
    names = [name for name, _ in model.named_parameters() if is_of_adapter(name)]
    return sorted(name_in_file(name, adapter) for name in names)


def stored_digests(adapter: Path) -> dict[str, str]:
    """As ``TrainedTensors.digests``, of an ``adapter_model.safetensors``."""
    from safetensors import safe_open

    with safe_open(adapter, framework="pt") as tensors:
        names = list(tensors.keys())
        return {name: digest(tensors.get_tensor(name)) for name in names}


def name_in_file(name: str, adapter: str) -> str:
    """The name that PEFT stores a parameter under: without the adapter's."""
    if is_of_adapter(name):
        name = name.removesuffix(f".{adapter}").replace(f".{adapter}.", ".", 1)
    return name.removesuffix(".weight") if ".lora_magnitude_vector" in name else name


def digest(tensor: Any) -> str:
    """SHA-256 of a tensor's shape and values; a 16-bit one has the digest of its 32-bit copy."""
    values = tensor.float().cpu().contiguous()
    found = hashlib.sha256(str(tuple(values.shape)).encode())
    found.update(values.view(-1).numpy().data)
    return found.hexdigest()
