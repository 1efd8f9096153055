"""The sample answers as a report shows them, by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_engineering.model.evaluation.samples import Sample
from llm_engineering.reporting.answer_columns import ShownAnswers, answer_columns, cut
from llm_engineering.reporting.production_answers import ProductionAnswers

LONGEST_TEXT = 4_000
"""Characters of an answer that are shown; what is shown can be rendered."""
MOST_TEXT = 50_000
"""Bytes of HTML that all of them may take: a report stays under 400 kB."""


@dataclass(frozen=True)
class ShownSample(ShownAnswers):
    """One prompt with its answers; numbered among all samples, from 0."""

    sample: Sample


@dataclass(frozen=True)
class SamplesSection:
    """What a report shows of them."""

    shown: list[ShownSample]
    unseen: int
    """Prompts that are left out, for the page's size."""
    size: int
    """Bytes of HTML, about."""

    @property
    def is_markdown(self) -> bool:
        """Whether any is shown rendered."""
        return any(one.is_markdown for one in self.shown)


def samples_section(
    samples: Sequence[Sample], production: ProductionAnswers | None
) -> SamplesSection:
    """Prompts in their order, as many as fit."""
    shown, used = list[ShownSample](), 0
    for number, sample in enumerate(samples):
        prompt = cut(sample.prompt, LONGEST_TEXT)
        columns = answer_columns(
            sample.reference,
            sample.before,
            sample.after,
            longest=LONGEST_TEXT,
            has_production=production is not None,
            production=production.samples[number] if production else None,
        )
        size = sum(column.size for column in columns) + len(prompt.encode()) + 1_000
        if used + size > MOST_TEXT:
            break
        used += size
        shown.append(ShownSample(number, prompt, columns, sample))
    return SamplesSection(shown, len(samples) - len(shown), used)
