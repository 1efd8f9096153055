"""The paper's own start: B is zero, and A normal with the standard deviation 1/r."""

from __future__ import annotations

from typing import ClassVar

from llm_engineering.initialisations.initialisation import Initialisation


class Gaussian(Initialisation):
    """As PEFT makes it of ``init_lora_weights="gaussian"`` (LoRA, arXiv 2106.09685, section 4.1)."""

    name: ClassVar[str] = "gaussian"
    peft_option: ClassVar[bool | str] = "gaussian"
