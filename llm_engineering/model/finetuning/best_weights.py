"""The adapter weights with the lowest held-out loss so far; every checkpoint has its copy of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from llm_engineering.distributed import world

_NAME = "best.safetensors"


class BestWeights:
    """A file of adapter weights in a run's work folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _NAME

    def keep(self, model: Any) -> None:
        """Write a PEFT model's adapter weights, in place of those that were the best."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        part = self._file.with_suffix(".part")
        weights = get_peft_model_state_dict(model)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, part)
        os.replace(part, self._file)

    def load_into(self, model: Any) -> None:
        """Put the best weights into the model that they were taken of; every rank must ask."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        # A rank on another host has no such file.
        told = load_file(self._file) if world.is_first() else None
        set_peft_model_state_dict(model, world.as_the_first_says(told))

    def add_to(self, checkpoint: Path) -> None:
        """Copy them into a checkpoint, which knows no later ones."""
        if self._file.is_file():
            shutil.copy2(self._file, checkpoint / _NAME)

    def restore_from(self, checkpoint: Path) -> None:
        """Go on with those of a checkpoint."""
        if (checkpoint / _NAME).is_file():
            shutil.copy2(checkpoint / _NAME, self._file)
