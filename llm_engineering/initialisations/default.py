"""PEFT's own start: B is zero, and A Kaiming-uniform."""

from __future__ import annotations

from typing import ClassVar

from llm_engineering.initialisations.initialisation import Initialisation


class Default(Initialisation):
    """The output is the base model's until B has learned (LoRA, arXiv 2106.09685, section 4.1)."""

    name: ClassVar[str] = "default"
