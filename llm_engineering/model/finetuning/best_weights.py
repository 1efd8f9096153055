"""The adapter weights with the lowest held-out loss so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_engineering.initialisations.kept_tensors import KeptTensors
from llm_engineering.peers import ALONE, Peers


class BestWeights(KeptTensors):
    """A file of adapter weights."""

    def __init__(self, folder: Path, peers: Peers = ALONE) -> None:
        super().__init__(folder, "best.safetensors", peers)

    def keep(self, model: Any) -> None:
        """Write a PEFT model's adapter weights, in place of those that were the best."""
        from peft import get_peft_model_state_dict

        self.write(get_peft_model_state_dict(model))

    def load_into(self, model: Any) -> None:
        """Put the best weights into the model that they were taken of; every rank must ask."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, self.read())
