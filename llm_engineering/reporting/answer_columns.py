"""A row's answers beside each other: as text, in which the words are marked that changed, and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from llm_engineering.reporting.markdown import rendered
from llm_engineering.reporting.word_differences import side_by_side


@dataclass(frozen=True)
class AnswerColumn:
    """One answer."""

    label: str
    text: Markup
    """The text itself, with ``<ins>`` and ``<del>``."""
    markdown: Markup | None
    """The same rendered; None where that shows nothing else, or is too large."""
    source: str = ""
    """The text that is shown, without marks."""
    note: str = ""
    style: str = ""
    is_known: bool = True
    """False: of production, which has no answer that was made alike."""

    @property
    def size(self) -> int:
        """Bytes of HTML."""
        return len(self.text.encode()) + len((self.markdown or "").encode())


@dataclass(frozen=True)
class ShownAnswers:
    """A row's prompt and answers, as a page shows them."""

    number: int
    """Its place among all of its kind, those too that are not shown."""
    prompt: str
    """Cut, where it is very long."""
    columns: list[AnswerColumn]

    @property
    def is_markdown(self) -> bool:
        """Whether an answer is shown rendered."""
        return any(column.markdown for column in self.columns)

    @property
    def hides_marks(self) -> bool:
        """Whether the words that changed are not marked until the text is shown.

        That is where the adapter's answer, or that which it is held against, is rendered: what is
        rendered has no marks, and marks in one of two answers alone would mislead.
        """
        _, base, *production, new = self.columns
        compared = production[0] if production and production[0].is_known else base
        return bool(new.markdown or compared.markdown)


def answer_columns(
    reference: str,
    base: str,
    new: str,
    *,
    longest: int,
    has_production: bool = False,
    production: str | None = None,
    cuts: tuple[bool, bool, bool] = (False, False, False),
) -> list[AnswerColumn]:
    """Reference, base model, production and adapter, in this order.

    Args:
        reference: The answer of the data.
        base: The base model's.
        new: The adapter's.
        longest: Characters of each that are shown.
        has_production: Whether there is a version in production, which then has a column.
        production: Its answer; None: it has none that was made alike, and the column says so.
        cuts: Whether the answers of base model, production and adapter reached their limit of tokens.
    """
    known = None if production is None else production[:longest]
    before, current, after = side_by_side(base[:longest], known, new[:longest])

    def column(label: str, whole: str, text: Markup, style: str, is_cut: bool) -> AnswerColumn:
        notes = [f"… ({len(whole):,} characters)"] * (len(whole) > longest) + ["[cut]"] * is_cut
        shown = whole[:longest]
        return AnswerColumn(label, text, rendered(shown), shown, " ".join(notes), style)

    columns = [
        column("Reference", reference, escape(reference[:longest]), "reference", False),
        column("Before · base model", base, before, "", cuts[0]),
    ]
    if has_production:
        label = "Production"
        columns.append(
            AnswerColumn(label, Markup(""), None, note="(none that was made alike)", is_known=False)
            if production is None or current is None
            else column(label, production, current, "", cuts[1])
        )
    return [*columns, column("After · adapter", new, after, "after", cuts[2])]


def cut(text: str, most: int) -> str:
    """At most so many characters of a text, and how many it has where it is cut."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text):,} characters)"
