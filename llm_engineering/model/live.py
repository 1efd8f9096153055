"""The live model of this process: held once, found again by the reference that it realises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LiveModel:
    """A model in memory and its tokenizer."""

    model: Any
    tokenizer: Any


_held: dict[str, LiveModel] = {}


def hold(key: str, live: LiveModel) -> None:
    """Hold a model under a key, letting go of any other: one model's memory, not two.

    Args:
        key: What the weights are: a reference's digest, or a trained adapter's.
        live: The model. Injection and training change it in place, so its key changes with it.
    """
    _held.clear()
    _held[key] = live


def find(key: str) -> LiveModel | None:
    """The held model if it is in the state that ``key`` names."""
    return _held.get(key)


def release() -> None:
    """Let go of the held model, for instance because a failed step left it half changed."""
    _held.clear()
