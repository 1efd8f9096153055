"""The modules of a PEFT model that carry an adapter, and those of which single rows train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

TRAINED_ROWS = ".token_adapter.trainable_tokens_delta"
"""Behind a module's name in an adapter's file: the rows of it that were trained."""


def adapted_modules(model: Any) -> Iterator[tuple[str, Any, str]]:
    """Every module of a PEFT model that carries an adapter: its name, itself, the adapter's name."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            (active,) = module.active_adapters
            yield name, module, active


def trained_rows(model: Any) -> dict[str, list[int]]:
    """The rows that train of each matrix, by the name of its module in a PEFT model; a tied one counts once."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    found = {}
    for name, module in model.named_modules():
        if isinstance(module, TrainableTokensLayer) and module.tied_adapter is None:
            (active,) = module.active_adapters
            found[name.removesuffix(".token_adapter")] = [
                int(i) for i in module.token_indices[active]
            ]
    return found
