"""Objectives: what a training learns, one file an objective, found by the name in ``train.objective``.

They know libraries only, so that every other room may ask them instead of comparing names.
"""

from llm_engineering.objectives.dpo import Dpo
from llm_engineering.objectives.kto import Kto
from llm_engineering.objectives.objective import Objective
from llm_engineering.objectives.orpo import Orpo
from llm_engineering.objectives.sft import Sft

OBJECTIVES: dict[str, Objective] = {each.name: each for each in (Sft(), Dpo(), Orpo(), Kto())}
"""By name, in the order in which they are told."""

__all__ = ["OBJECTIVES", "Objective"]
