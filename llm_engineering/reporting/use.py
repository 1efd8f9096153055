"""The commands and the code that a reader copies from the report to use what was trained."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from llm_engineering.reporting.model_card import render_model_card
from llm_engineering.reporting.run_report import RunReport

_QUESTION = 200
"""Characters of the example question."""


@dataclass(frozen=True)
class Use:
    """What to copy."""

    question: str
    """A held-out prompt, quoted for a shell."""
    folder: str
    """The run's, quoted likewise."""
    python: str


def how_to_use(run: RunReport) -> Use:
    """A command that asks the adapter, and the model card's own code."""
    folder = f"{run.config.run.output_dir}/{run.name}"
    asked = run.evaluation.samples[0].prompt if run.evaluation.samples else "Who are you?"
    block = re.search(r"^```python\n(.*?)^```", render_model_card(run), re.DOTALL | re.MULTILINE)
    return Use(
        question=shlex.quote(" ".join(asked.split())[:_QUESTION]),
        folder=shlex.quote(folder),
        python=block[1].strip() if block else "",
    )
