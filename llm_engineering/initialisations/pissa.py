"""PiSSA: training moves the weights' principal directions; what it leaves is an ordinary adapter."""

from __future__ import annotations

from typing import ClassVar

from llm_engineering.initialisations.initialisation import Initialisation


class Pissa(Initialisation):
    """From the weights' principal components (arXiv 2404.02948)."""

    name: ClassVar[str] = "pissa"
    reads_weights: ClassVar[bool] = True
    rank_factor: ClassVar[int] = 2
    can_be_sharded: ClassVar[bool] = False
