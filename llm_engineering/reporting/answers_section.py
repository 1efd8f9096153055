"""The scored answers as report and model card show them: few enough to keep the page small."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import escape

from llm_engineering.reporting import formats
from llm_engineering.reporting.answer_columns import ShownAnswers, answer_columns, cut
from llm_engineering.reporting.production_answers import ProductionAnswers
from llm_engineering.scoring.answers import AnsweredRow, Answers, Score

LONGEST_TEXT = 1_200
"""Characters of a prompt, a reference or an answer that a report shows."""
MOST_TEXT = 140_000
"""Bytes of HTML that these and the sample answers may take: a report stays under 400 kB."""


@dataclass(frozen=True)
class ShownRow(ShownAnswers):
    """One row and its scores; numbered among all rows, from 1."""

    row: AnsweredRow
    scores: list[tuple[str, float | None, float | None]]
    """Name, before, after."""

    @property
    def outcomes(self) -> str:
        """For the page's script: by score, whether the adapter's is better, worse or the same."""
        return " ".join(f"{name}:{_outcome(was, now)}" for name, was, now in self.scores)


@dataclass(frozen=True)
class Moved:
    """A row that gained or lost, by one score."""

    number: int
    prompt: str
    gain: float
    is_shown: bool
    """Whether it is among the answers that the page has room for."""


@dataclass(frozen=True)
class AnswersSection:
    """What a report shows of scored answers."""

    answers: Answers
    shown: list[ShownRow]
    gained: list[Moved]
    lost: list[Moved]
    leading: str
    """The score that rows are listed by: the first that is configured."""

    @property
    def is_markdown(self) -> bool:
        """Whether any is shown rendered."""
        return any(one.is_markdown for one in self.shown)

    @property
    def unseen(self) -> int:
        """Rows that are left out, for the page's size."""
        return len(self.answers.rows) - len(self.shown)

    def counts(self, score: Score) -> tuple[int, int, int]:
        """Rows that are better, the same, worse."""
        gains = [gain for _, gain in score.gains()]
        return sum(g > 0 for g in gains), sum(g == 0 for g in gains), sum(g < 0 for g in gains)

    @property
    def cut(self) -> tuple[int, int]:
        """Answers before and after that reached the limit of tokens."""
        rows = self.answers.rows
        return sum(row.before.is_cut for row in rows), sum(row.after.is_cut for row in rows)

    @property
    def how(self) -> str:
        """How the answers were made, in words."""
        return how_made(self.answers)


def how_made(answers: Answers) -> str:
    """How answers were made: ``greedily, at most 64 tokens each``."""
    made, way = answers.generation, "greedily"
    if made["temperature"]:
        others = [f", {key} {made[key]:g}" for key in ("top_p", "top_k") if made[key] is not None]
        way = f"by sampling at temperature {made['temperature']:g}{''.join(others)} (seed {made['seed']})"
    return f"{way}, at most {formats.count(made['max_new_tokens'])} tokens each"


def answers_section(
    answers: Answers | None, production: ProductionAnswers | None, *, used: int = 0
) -> AnswersSection | None:
    """What a report shows of them, beside production's; None where none were made.

    Args:
        answers: The run's.
        production: Production's, if there is a version in production.
        used: Bytes of ``MOST_TEXT`` that the sample answers take.
    """
    if answers is None:
        return None
    leading = answers.scores[0] if answers.scores else None
    gained = leading.gained() if leading else []
    lost = leading.lost() if leading else []
    shown = _shown(
        answers, production, [number for number, _ in (*gained, *lost)], MOST_TEXT - used
    )
    numbers = {one.number for one in shown}

    def moved(number: int, gain: float) -> Moved:
        prompt = cut(" ".join(answers.rows[number].prompt.split()), 120)
        return Moved(number + 1, prompt, gain, number + 1 in numbers)

    return AnswersSection(
        answers=answers,
        shown=shown,
        gained=[moved(*one) for one in gained],
        lost=[moved(*one) for one in lost],
        leading=leading.name if leading else "",
    )


def _shown(
    answers: Answers, production: ProductionAnswers | None, first: list[int], left: int
) -> list[ShownRow]:
    """Rows in their order, as many as fit; those that moved most come first into it."""
    chosen = list[ShownRow]()
    for number in dict.fromkeys([*first, *range(len(answers.rows))]):
        row = answers.rows[number]
        theirs = production.answers[number] if production else None
        prompt = cut(row.prompt, LONGEST_TEXT)
        texts = [prompt, row.reference, row.before.text, row.after.text]
        if sum(len(str(escape(text[:LONGEST_TEXT])).encode()) for text in texts) + 1_000 > left:
            continue  # before it is rendered: most of many rows do not fit
        columns = answer_columns(
            row.reference,
            row.before.text,
            row.after.text,
            longest=LONGEST_TEXT,
            has_production=production is not None,
            production=theirs.text if theirs else None,
            cuts=(row.before.is_cut, bool(theirs and theirs.is_cut), row.after.is_cut),
        )
        size = len(str(escape(prompt)).encode()) + sum(one.size for one in columns) + 1_200
        if size > left:
            continue
        left -= size
        scores = [(one.name, one.before[number], one.after[number]) for one in answers.scores]
        chosen.append(ShownRow(number + 1, prompt, columns, row, scores))
    return sorted(chosen, key=lambda one: one.number)


def _outcome(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "none"
    return "better" if after > before else "worse" if after < before else "same"
