"""``--explain``: what a key of the configuration takes, its default, and what it is for."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from llm_engineering.configuration.schema import Key, explain


def show(name: str) -> None:
    """Print a key, or a section with its keys.

    Raises:
        ConfigError: There is none of this name.
    """
    console = Console(highlight=False)
    for key in explain(name):
        console.print(_head(key))
        if key.description:
            console.print(Padding(Text(key.description), (0, 0, 0, 4)))


def _head(key: Key) -> Text:
    default = "must be given" if key.default is None else f"default {key.default}"
    return Text.assemble((key.name, "bold"), f": {key.values}; {default}")
