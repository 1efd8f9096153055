"""What a prepared data set is, in figures: for the report, the manifest and the dashboard."""

from __future__ import annotations

from pydantic import BaseModel, Field

from llm_engineering.data.tokens.audit import LabelAudit, LabelledPiece
from llm_engineering.model.chat_template import TemplateInputs


class Repeats(BaseModel):
    """Rows that repeat, contradict or leak others: how many, and what was done about them."""

    equal: int = Field(0, description="Rows that are exactly so.")
    near: int = Field(0, description="Rows that are nearly so.")
    dropped: bool = Field(False, description="They were left out of training.")
    first: list[str] = Field([], description="The first of them: file:line = file:line.")

    @property
    def count(self) -> int:
        """All of them."""
        return self.equal + self.near


class SourceSummary(BaseModel):
    """One source and how many rows were read from it, bad ones included."""

    source: str
    rows: int
    form: str | None = Field(None, description="Form of its rows; none was good: None.")
    used: int | None = Field(None, description="Rows of it that are trained or evaluated on.")
    unread: dict[str, int] = Field(
        {},
        description="What it holds and nothing reads, by name, and how often: 'column meta' and "
        "'messages[].name' in rows, 'file README.md' in a folder, 'blank line' of a text.",
    )


class ExampleRow(BaseModel):
    """One training row as the model sees it."""

    origin: str = Field(description="file:line that it came from.")
    cut: bool = Field(False, description="It was cut at model.max_seq_length.")
    pieces: list[LabelledPiece]


class DatasetSummary(BaseModel):
    """What the data is, for the report, the manifest and the dashboard."""

    sources: list[SourceSummary]
    bad_rows: list[str] = Field(description="Skipped rows: file:line and the reason.")
    bad_rows_unlisted: int = Field(0, description="Skipped rows beyond those.")
    contradictions: Repeats | None = Field(
        None, description="Training rows that say the opposite of another; None: not looked for."
    )
    duplicates: Repeats | None = Field(
        None, description="Training rows that repeat an earlier one; None: not looked for."
    )
    leaks: Repeats | None = Field(
        None,
        description="Training rows that are held out too, or whose prompt is; None: not looked for.",
    )
    train: LabelAudit
    held_out: LabelAudit
    held_out_unused: int = Field(
        0,
        description="Held-out rows beyond data.held_out.max_rows: neither trained nor evaluated on.",
    )
    examples: list[ExampleRow] = Field(
        [], description="The first training row of each source, and the first that was cut."
    )
    notices: list[str] = Field(
        [], description="What a reader should know of the data, and did not ask for."
    )
    digest: str = Field(description="SHA-256 over all token ids and labels, in order.")
    held_out_digest: str = Field(description="The same over the held-out rows alone.")
    template_inputs: TemplateInputs = Field(
        TemplateInputs(), description="What the chat template was given beside messages."
    )

    @property
    def bad_row_count(self) -> int:
        """All skipped rows."""
        return len(self.bad_rows) + self.bad_rows_unlisted

    @property
    def figures(self) -> dict[str, int | str]:
        """Rows, tokens and what was skipped or cut, by name."""
        figures: dict[str, int | str] = {
            "train_rows": self.train.rows,
            "train_row_tokens": self.train.tokens,
            "trained_tokens": self.train.trained_tokens,
            "truncated_rows": self.train.truncated_rows,
            "held_out_rows": self.held_out.rows,
            "held_out_row_tokens": self.held_out.tokens,
            "held_out_unused_rows": self.held_out_unused,
            "bad_rows": self.bad_row_count,
            "digest": self.digest,
        }
        for name, found in (
            ("contradictory_rows", self.contradictions),
            ("duplicate_rows", self.duplicates),
            ("leaked_rows", self.leaks),
        ):
            if found is not None:
                figures[name] = found.count
        return figures
