"""The section ``run``: where a run writes, what it is called, and its seed."""

from __future__ import annotations

from pydantic import Field

from llm_engineering.configuration.section import Name, Section, Seed


class RunSettings(Section):
    """Where a run writes and what it is called."""

    name: Name | None = Field(
        None,
        description="Name of the run and of its folder; default: model, data and the time.",
    )
    output_dir: str = Field(
        "outputs", min_length=1, description="Folder that receives <run name>/."
    )
    seed: Seed = Field(0, description="Seed of the data order, dropout and sampling.")
