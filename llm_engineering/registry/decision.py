"""The outcome of the promotion gate: what was checked, and why a version was promoted or not."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Check(BaseModel):
    """One check of the gate."""

    name: str = Field(description="As in registry.checks.")
    passed: bool
    detail: str = Field(description="The figures, in a sentence.")

    @property
    def text(self) -> str:
        """Outcome and figures, in a line."""
        return f"{'passed' if self.passed else 'failed'}, {self.detail}"


class Decision(BaseModel):
    """Whether a version became the production one, and why."""

    model: str = Field(description="Name of the ZenML model.")
    version: str = Field(description="Name of its version, which is the run's.")
    promoted: bool
    reason: str
    production: str | None = Field(
        None, description="The production version that it was compared with; None: there was none."
    )
    checks: list[Check] = []
