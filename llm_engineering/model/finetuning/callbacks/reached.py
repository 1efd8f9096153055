"""At the first step: every trained tensor is reached by a gradient, or training ends there.

A model's own code may read a module's weight and go past its adapter, which would then stay what it was
while all else learns. Nothing in the loss would say so.
"""

from __future__ import annotations

from typing import Any

from llm_engineering.errors import LoraError
from llm_engineering.model.finetuning.callbacks.callback import Callback


class Reached(Callback):
    """Looks once.

    Args:
        model: Its trainable parameters are to learn.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._looked = False

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look for what has no gradient; an expert that no token was sent to may have none yet.

        Raises:
            LoraError: There is some; says how much, and where.
        """
        if self._looked:
            return
        self._looked = True
        trained = [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]
        passed_by = [name for name, p in trained if p.grad is None and ".experts." not in name]
        if passed_by:
            raise LoraError(
                f"lora.target_modules: {len(passed_by)} of {len(trained)} trained tensors are reached by "
                f"no gradient, as {passed_by[0]}: the model goes past that module's adapter, which would "
                "stay as it is; name the modules that are to learn, without that one"
            )
