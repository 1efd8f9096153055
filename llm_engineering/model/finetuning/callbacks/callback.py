"""What a trainer's callbacks are made of, without transformers, which must be imported after unsloth."""

from __future__ import annotations

from typing import Any


class Callback:
    """As ``transformers.TrainerCallback``: what a callback does not define is nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(f"{type(self).__name__} has no {name}")


def _nothing(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """Leaves the trainer as it is."""
