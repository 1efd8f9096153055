"""The section ``registry``: the registered model, and what makes a version production."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from llm_engineering.configuration.section import Name, Section

CheckName = Literal[
    "finite_losses",
    "trained_end_of_turn",
    "intact_adapter",
    "not_rolled_back",
    "parity",
    "forgetting",
    "better_than_base",
    "better_than_production",
]


class BetterAt(Section):
    """A check by a score of evaluate.answers: better than production's answers to the same rows."""

    better_at: Name = Field(
        description="Name of a scorer of evaluate.answers: beyond noise, the answers must be better than "
        "production's to the same rows, or than the base model's where production has none."
    )


def _kind_of_check(value: Any) -> str:
    return "score" if isinstance(value, dict | BetterAt) else "name"


CheckSetting = Annotated[
    Annotated[CheckName, Tag("name")] | Annotated[BetterAt, Tag("score")],
    Discriminator(_kind_of_check),
]


class RegistrySettings(Section):
    """The registered model that a run adds a version to, and what makes a version production."""

    model: Name | None = Field(
        None,
        description="Name of the ZenML model; default: base model and data, as in the run's name.",
    )
    promote: bool = Field(
        True, description="Promote a version that passes every check; false: register it only."
    )
    checks: list[CheckSetting] = Field(
        list(get_args(CheckName)),
        description="What a version must pass to be promoted; {better_at: NAME} names a scorer of "
        "evaluate.answers.",
    )
    min_improvement: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0,
        description="Least decrease of the held-out loss, as a share of the production version's.",
    )
    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = Field(
        0.95, description="Confidence that the decrease is real (paired bootstrap over rows)."
    )
    max_forgetting: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = Field(
        0.25,
        description="Largest increase of the loss on general text, as a share of the base model's.",
    )

    @property
    def scores(self) -> list[str]:
        """Names of the scorers that checks name."""
        return [one.better_at for one in self.checks if isinstance(one, BetterAt)]
