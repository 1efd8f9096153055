"""The scorers that look at one answer alone, by name; the judge, which compares two, is in judge.py."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from llm_engineering.configuration.answers import ScorerKind, ScorerSettings
from llm_engineering.scoring import user_function
from llm_engineering.scoring.answers import Answer, AnsweredRow
from llm_engineering.scoring.rouge import rouge_l

Scorer = Callable[[Answer, AnsweredRow], float]
"""The score of an answer to a row; more is better."""
SOURCE = "source"
"""Key of the SHA-256 of the file that a function of the user's own is in."""


def scorer(settings: ScorerSettings, key: str) -> Scorer:
    """The scorer that the settings name.

    Args:
        settings: Of another kind than ``judge``.
        key: The configuration's key, for messages.

    Raises:
        ConfigError: A function of the user's own cannot be imported.
    """
    return SCORERS[settings.scorer](settings, key)


def told(settings: ScorerSettings) -> dict[str, Any]:
    """A scorer's settings as they are kept beside its numbers; with the digest of a user's function."""
    kept = settings.model_dump(mode="json", exclude_defaults=True) | {"name": settings.name}
    if settings.function is not None:
        function = user_function.load_function(settings.function, settings.name)
        kept[SOURCE] = user_function.source_digest(function)
    return kept


def _exact(settings: ScorerSettings, key: str) -> Scorer:
    def score(answer: Answer, row: AnsweredRow) -> float:
        return float(_folded(answer.text, settings) == _folded(row.reference, settings))

    return score


def _contains(settings: ScorerSettings, key: str) -> Scorer:
    def score(answer: Answer, row: AnsweredRow) -> float:
        return float(_folded(row.reference, settings) in _folded(answer.text, settings))

    return score


def _folded(text: str, settings: ScorerSettings) -> str:
    return text.strip().casefold() if settings.ignore_case else text.strip()


def _regex(settings: ScorerSettings, key: str) -> Scorer:
    pattern = re.compile(settings.pattern or "")

    def score(answer: Answer, row: AnsweredRow) -> float:
        return float(pattern.search(answer.text) is not None)

    return score


def _json(settings: ScorerSettings, key: str) -> Scorer:
    is_valid = _validator(settings.json_schema)

    def score(answer: Answer, row: AnsweredRow) -> float:
        try:
            # NaN and Infinity, which Python reads, are not JSON (RFC 8259, section 6).
            value = json.loads(answer.text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return 0.0
        return float(is_valid(value))

    return score


def _validator(schema: dict[str, Any] | None) -> Callable[[Any], bool]:
    if schema is None:
        return lambda value: True
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    # A registry of its own: jsonschema's default one would fetch what a $ref names.
    checked: Any = validator_for(schema, default=Draft202012Validator)
    valid: Callable[[Any], bool] = checked(schema, registry=Registry()).is_valid
    return valid


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _rouge_l(settings: ScorerSettings, key: str) -> Scorer:
    return lambda answer, row: rouge_l(answer.text, row.reference)


def _chrf(settings: ScorerSettings, key: str) -> Scorer:
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()  # character 6-grams, beta 2 (Popović, WMT 2015)

    def score(answer: Answer, row: AnsweredRow) -> float:
        return float(chrf.sentence_score(answer.text, [row.reference]).score) / 100.0

    return score


def _tool_call(settings: ScorerSettings, key: str) -> Scorer:
    def score(answer: Answer, row: AnsweredRow) -> float:
        return float(same_json(answer.tool_calls or [], row.reference_calls or []))

    return score


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 is 1.0, and unlike Python's, true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other)


def _python(settings: ScorerSettings, key: str) -> Scorer:
    named = settings.function or ""
    function = user_function.load_function(named, key)

    def score(answer: Answer, row: AnsweredRow) -> float:
        return user_function.call(
            function, named, row.origin,
            answer=answer.text, reference=row.reference, prompt=row.prompt,
        )  # fmt: skip

    return score


SCORERS: dict[ScorerKind, Callable[[ScorerSettings, str], Scorer]] = {
    "exact": _exact,
    "contains": _contains,
    "regex": _regex,
    "json": _json,
    "rouge_l": _rouge_l,
    "chrf": _chrf,
    "tool_call": _tool_call,
    "python": _python,
}
