"""LoftQ: the adapter starts at what quantisation took from the weights."""

from __future__ import annotations

from typing import ClassVar

from llm_engineering.initialisations.initialisation import Initialisation


class LoftQ(Initialisation):
    """From the error of 4-bit weights (arXiv 2310.08659)."""

    name: ClassVar[str] = "loftq"
    reads_weights: ClassVar[bool] = True
