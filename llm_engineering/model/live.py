"""The live model of this process: kept once, found again by the recipe that it realises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LiveModel:
    """A model in memory and its tokenizer."""

    model: Any
    tokenizer: Any


_kept: dict[str, LiveModel] = {}


def keep(key: str, live: LiveModel) -> None:
    """Keep a model under a key, letting go of any other: one model's memory, not two.

    Args:
        key: What the weights are: a recipe's digest, or a trained adapter's.
        live: The model. Injection and training change it in place, so its key changes with it.
    """
    _kept.clear()
    _kept[key] = live


def find(key: str) -> LiveModel | None:
    """The model if it is in the state that ``key`` names."""
    return _kept.get(key)


def release() -> None:
    """Let go of the model, for instance because a failed step left it half changed."""
    _kept.clear()
