"""The modules of a PEFT model that carry an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def adapted_modules(model: Any) -> Iterator[tuple[str, Any, str]]:
    """Every module of a PEFT model that carries an adapter: its name, itself, the adapter's name."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            (active,) = module.active_adapters
            yield name, module, active
