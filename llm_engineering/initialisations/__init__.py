"""Initialisations: where an adapter starts, one file a way, found by the name in ``lora.init``.

They know libraries only, so that every other room may ask them instead of comparing names.
"""

from llm_engineering.initialisations.default import Default
from llm_engineering.initialisations.gaussian import Gaussian
from llm_engineering.initialisations.initialisation import Initialisation
from llm_engineering.initialisations.loftq import LoftQ
from llm_engineering.initialisations.pissa import Pissa

INITIALISATIONS: dict[str, type[Initialisation]] = {
    each.name: each for each in (Default, Gaussian, Pissa, LoftQ)
}
"""By name, in the order in which they are told."""

__all__ = ["INITIALISATIONS", "Initialisation"]
