"""A candidate's score held against production's on the same rows, or against the base model's."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pydantic import ValidationError

from llm_engineering.configuration.answers import ScorerSettings
from llm_engineering.errors import ConfigError, ScoringError
from llm_engineering.scoring.answers import Answers, Score
from llm_engineering.scoring.require import is_installed
from llm_engineering.scoring.scorers import SOURCE, scorer

logger = logging.getLogger(__name__)

BASE = "the base model"


@dataclass(frozen=True)
class ScorePairs:
    """Two models' scores of the same rows, in one order."""

    ours: list[float]
    theirs: list[float]
    other: str
    """The model to beat."""
    why_base: str = ""
    """Why it is the base model although there is a production version."""


def compare_scores(
    name: str, ours: Answers, production: Answers | None, version: str | None
) -> ScorePairs:
    """A score of both on the rows that both answered, made alike.

    Production's answers are scored again if its scorer was another: a score needs no model. A judge's
    verdicts are taken as they were, if judge and question are the same.

    Args:
        name: Of a score that ``ours`` has.
        ours: The candidate's answers.
        production: Those that production was saved with; None: it has none.
        version: Production's name; None: there is none, and the base model is to be beaten.
    """
    score = ours.score(name)
    if score is None:
        raise ValueError(f"no score {name}")
    if version is None:
        return _against_base(score, "")
    if production is None:
        return _against_base(score, f"{version} was saved without answers")
    if not production.made_like(ours):
        return _against_base(score, f"{version}'s answers were made by other settings")
    theirs = _scores_of(production, score)
    if theirs is None:
        return _against_base(score, f"{version}'s answers have no such score")
    pairs = [
        (own, other)
        for row, own in zip(ours.rows, score.after, strict=True)
        if own is not None and (other := theirs.get(row.key)) is not None
    ]
    if not pairs:
        return _against_base(score, f"{version} answered none of these rows")
    own_scores, other_scores = zip(*pairs, strict=True)
    return ScorePairs([*own_scores], [*other_scores], version)


def _against_base(score: Score, why: str) -> ScorePairs:
    pairs = score.pairs()
    return ScorePairs([one for _, _, one in pairs], [other for _, other, _ in pairs], BASE, why)


def _scores_of(production: Answers, score: Score) -> dict[str, float | None] | None:
    """Production's scores by row, by the candidate's scorer; None: they cannot be had."""
    stored = production.score(score.name)
    if stored is not None and stored.settings == score.settings:
        return {row.key: one for row, one in zip(production.rows, stored.after, strict=True)}
    settings = {key: value for key, value in score.settings.items() if key != SOURCE}
    if settings["scorer"] == "judge" or not is_installed(settings["scorer"]):
        return None
    try:
        again = scorer(ScorerSettings.model_validate(settings), "registry.checks")
        return {row.key: again(row.after, row) for row in production.rows}
    except (ConfigError, ScoringError, ValidationError) as error:
        logger.warning("production's answers cannot be scored again: %s", error)
        return None
