"""What the production version answered to a run's held-out rows, and why it has no answer to some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from llm_engineering.model.evaluation.evaluation import Evaluation
from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.model.finetuning.record import ProductionMetrics
from llm_engineering.reporting import formats
from llm_engineering.scoring.answers import Answer, Answers

_NAMED = 5
"""Rows that a note names."""


@dataclass(frozen=True)
class ProductionAnswers:
    """Production's answers beside a run's own, in the order of that run's rows."""

    version: str
    samples: list[str | None]
    """To the sample prompts; None: there is none that was made alike."""
    answers: list[Answer | None]
    """Likewise, to the scored rows."""
    notes: list[str] = field(default_factory=list)
    """Which rows have none and why, and what else is to be known of it."""


def production_answers(
    version: str,
    evaluation: Evaluation,
    stored: Evaluation | None,
    measured: ProductionMetrics | None,
    *,
    missing: str = "",
    notes: Sequence[str] = (),
) -> ProductionAnswers:
    """Find production's answers to a run's rows: as stored with it, else as made beside the run.

    An answer counts if row and prompt are the same and it was made by the same settings.

    Args:
        version: Its name.
        evaluation: The run's.
        stored: That which production was saved with; None: it cannot be had.
        measured: What it was measured to do on this run's rows, where it was.
        missing: Why it cannot be had.
        notes: What is to be known of this version besides.
    """
    samples, sample_notes = _samples(version, evaluation.samples, stored, measured, missing)
    answers, answer_notes = _answers(evaluation.answers, stored, missing)
    return ProductionAnswers(version, samples, answers, [*notes, *sample_notes, *answer_notes])


def _samples(
    version: str,
    ours: Sequence[Sample],
    stored: Evaluation | None,
    measured: ProductionMetrics | None,
    missing: str,
) -> tuple[list[str | None], list[str]]:
    theirs = {one.key: one for one in stored.samples if one.key} if stored else {}
    nameless = bool(stored and stored.samples and not theirs)
    made = measured.samples if measured and measured.version == version else []
    found: list[str | None] = []
    why: dict[str, list[str]] = {}
    for number, one in enumerate(ours):
        other = theirs.get(one.key)
        if other and other.prompt == one.prompt and other.max_new_tokens == one.max_new_tokens:
            found.append(other.after)
            continue
        if len(made) == len(ours):
            found.append(made[number])
            continue
        found.append(None)
        if stored is None:
            reason = missing
        elif nameless:
            reason = "its answers were stored by an earlier release, which did not tell their rows"
        elif other is None:
            reason = "it was not asked them when it was saved"
        elif other.prompt != one.prompt:
            reason = "it was asked another part of the text"
        else:
            reason = (
                f"its answers had at most {formats.count(other.max_new_tokens)} tokens, and "
                f"evaluate.max_new_tokens is {formats.count(one.max_new_tokens)} now"
            )
        why.setdefault(reason, []).append(one.origin)
    return found, _notes(why, len(ours), "sample prompts")


def _answers(
    ours: Answers | None, stored: Evaluation | None, missing: str
) -> tuple[list[Answer | None], list[str]]:
    if ours is None:
        return [], []
    theirs = stored.answers if stored else None
    origins = [row.origin for row in ours.rows]
    reason = ""
    if stored is None:
        reason = missing
    elif theirs is None:
        reason = "it was saved without scored answers"
    elif not theirs.made_like(ours):
        differ = [
            f"{key} {theirs.generation.get(key)}, now {value}"
            for key, value in ours.generation.items()
            if key != "rows" and theirs.generation.get(key) != value
        ]
        reason = f"its answers were made by other settings ({'; '.join(differ)})"
    if theirs is None or reason:
        return [None] * len(origins), _notes({reason: origins}, len(origins), "scored rows")
    known = {row.key: row for row in theirs.rows}
    found = [
        other.after if (other := known.get(row.key)) and other.prompt == row.prompt else None
        for row in ours.rows
    ]
    lacking = [origin for origin, one in zip(origins, found, strict=True) if one is None]
    why = {"it was not asked them when it was saved": lacking} if lacking else {}
    return found, _notes(why, len(origins), "scored rows")


def _notes(why: dict[str, list[str]], rows: int, what: str) -> list[str]:
    told = []
    for reason, origins in why.items():
        which = f"any of the {formats.count(rows)} {what}"
        if len(origins) < rows:
            named = ", ".join(origins[:_NAMED]) + (", …" if len(origins) > _NAMED else "")
            which = f"{formats.count(len(origins))} of the {formats.count(rows)} {what} ({named})"
        told.append(f"It has no answer to {which}: {reason}.")
    return told
