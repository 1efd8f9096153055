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

_Share = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
MaxForgetting = Annotated[
    Annotated[_Share, Tag("number")] | Annotated[dict[str, _Share], Tag("by_name")],
    Discriminator(lambda value: "by_name" if isinstance(value, dict) else "number"),
]
GENERAL_TEXT = "general_text"
_MOST_FORGOTTEN = 0.25


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
    max_forgetting: MaxForgetting = Field(
        _MOST_FORGOTTEN,
        description="Largest increase of the loss on general text, as a share of the base model's; or a "
        "mapping, {general_text: 0.25, TASK: 0.05}, where a benchmark's figure may get worse by its "
        "share.",
    )

    @property
    def most_forgotten_text(self) -> float:
        """Largest increase of the loss on general text that is let pass."""
        asked = self.max_forgetting
        return asked.get(GENERAL_TEXT, _MOST_FORGOTTEN) if isinstance(asked, dict) else asked

    @property
    def most_forgotten_tasks(self) -> dict[str, float]:
        """Largest loss by benchmark that is let pass, as a share of the base model's figure."""
        asked = self.max_forgetting
        by_name = asked if isinstance(asked, dict) else {}
        return {name: share for name, share in by_name.items() if name != GENERAL_TEXT}

    @property
    def scores(self) -> list[str]:
        """Names of the scorers that checks name."""
        return [one.better_at for one in self.checks if isinstance(one, BetterAt)]
