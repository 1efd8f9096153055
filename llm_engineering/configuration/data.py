"""The section ``data``: sources, held-out rows, and what to do about bad, repeated and leaked rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llm_engineering.configuration.section import PositiveInt, Section, Seed, Share

RowForm = Literal["alpaca", "prompt_completion", "messages", "sharegpt", "text", "continuation"]
Column = Literal[
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "response",
    "history",
    "messages",
    "conversations",
    "text",
    "system",
    "tools",
    "chosen",
    "rejected",
    "label",
]
"""A column that the forms of rows know."""
ColumnName = Annotated[str, Field(min_length=1)]
_FORM = (
    "Form of the rows; default: told by the first row's columns. prompt_completion is a chat "
    "turn; continuation is plain text, of which the completion is trained."
)
_SPLIT = (
    "Split of a Hub data set, a folder that names its splits, a JSON object of them or an "
    "artifact; default: "
)
_COLUMNS = (
    "The rows' own names of the columns that a form has, e.g. {prompt: question, "
    "completion: answer}."
)
_SUBSET = "Subset (configuration) of a Hub data set."
_REVISION = "Branch, tag or commit of a Hub data set."


class DataSource(Section):
    """One source of training rows."""

    source: str = Field(
        min_length=1,
        description="A .jsonl, .json, .csv, .txt (each .gz and .zst too), .parquet or .arrow file, "
        "a folder or a glob of them, a folder that datasets saved, a URL (s3://, gs://, hf://), "
        "zenml://ARTIFACT@VERSION, or a data set id on the Hub.",
    )
    form: RowForm | None = Field(None, description=_FORM)
    columns: dict[Column, ColumnName] = Field({}, description=_COLUMNS)
    split: ColumnName | None = Field(None, description=f"{_SPLIT}train.")
    subset: ColumnName | None = Field(None, description=_SUBSET)
    revision: ColumnName | None = Field(None, description=_REVISION)
    max_rows: PositiveInt | None = Field(
        None, description="Use the first so many rows; default: all."
    )
    weight: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = Field(
        None,
        description="Share of the rows that come from this source, relative to the others' weights. "
        "No row is repeated: the source with too few rows for its share sets how many are drawn "
        "from the others. Default: every row of every source.",
    )

    @model_validator(mode="after")
    def _columns_differ(self) -> DataSource:
        _require_different(self.columns)
        return self


class HeldOutSettings(Section):
    """Rows that are never trained on; the loss on them is what the report compares."""

    source: str | None = Field(
        None, description="Held-out rows of their own: anything that data.sources may name."
    )
    form: RowForm | None = Field(None, description=_FORM)
    columns: dict[Column, ColumnName] = Field({}, description=_COLUMNS)
    split: ColumnName | None = Field(None, description=f"{_SPLIT}test.")
    subset: ColumnName | None = Field(None, description=_SUBSET)
    revision: ColumnName | None = Field(None, description=_REVISION)
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        None,
        description="Share of the training rows to hold out, about; a row's first prompt (system and "
        "first user message) and data.seed decide, so that rows that begin alike stay together, and "
        "data that grows never moves a trained row here.",
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="Column whose value decides instead of the first prompt: rows that share it (an "
        "author, a document) stay together.",
    )
    max_rows: PositiveInt | None = Field(
        None,
        description="Evaluate on so many held-out rows at most, drawn from all sources and files by "
        "each row's text and data.seed; the others are not used. Default: all.",
    )

    @model_validator(mode="after")
    def _one_origin(self) -> HeldOutSettings:
        if (self.source is None) == (self.fraction is None):
            raise ValueError("give exactly one of source and fraction")
        if self.group is not None and self.fraction is None:
            raise ValueError("group says how a fraction is drawn; drop it, or give a fraction")
        if self.fraction is not None:
            for name in ("form", "columns", "split", "subset", "revision"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name} says how source is read, and a fraction is drawn from data.sources, "
                        "which have their own; drop it"
                    )
        _require_different(self.columns)
        return self


class DataSettings(Section):
    """The training data."""

    sources: list[DataSource] = Field(min_length=1, description="Read in this order.")
    held_out: HeldOutSettings = Field(description="Rows kept back for evaluation.")
    on_bad_rows: Literal["error", "skip"] = Field(
        "error", description="Stop at bad rows, or skip them and count them in the report."
    )
    on_duplicates: Literal["keep", "drop", "error"] = Field(
        "keep",
        description="Training rows that repeat an earlier one: kept, left out, or an error; counted "
        "in the report.",
    )
    on_leaks: Literal["warn", "drop", "error"] = Field(
        "warn",
        description="Training rows whose first prompt, but for case and spaces, is held out too: a "
        "warning, left out of training, or an error.",
    )
    on_contradictions: Literal["warn", "drop", "error"] = Field(
        "warn",
        description="Preferences that say the opposite of another training row (the same answers, "
        "the other way round): a warning, both left out, or an error.",
    )
    near_duplicates: Annotated[float, Field(ge=0.5, lt=1.0)] | None = Field(
        None,
        description="Similarity (Jaccard, of five-character pieces) from which rows count as repeated, "
        "and their first prompts as leaked, e.g. 0.8; found by MinHash: 95 % of the pairs at it, and "
        "98 % of those 0.05 above. Default: equal ones alone.",
    )
    seed: Seed = Field(
        0,
        description="Decides which rows are held out by fraction or max_rows, and which are drawn by "
        "weight. It is no part of run.seed, which moves no row: keep it, or a version in production "
        "is judged on rows that it was trained on.",
    )
    num_proc: PositiveInt | None = Field(
        None,
        description="Processes that check and tokenize many rows; the result is the same. Default: "
        "one a core, if there are more than two.",
    )
    loss_on: Literal["completion", "last_turn", "everything"] = Field(
        "completion",
        description="Tokens that are trained: the assistant's, those of its last turn, or the "
        "prompt's too.",
    )
    max_truncated_share: Share = Field(
        0.05, description="Largest share of rows that may be cut at model.max_seq_length."
    )

    @model_validator(mode="after")
    def _all_weighed(self) -> DataSettings:
        weighed = [source.weight is not None for source in self.sources]
        if any(weighed) and not all(weighed):
            raise ValueError(
                f"sources.{weighed.index(False)} has no weight and another has: give every source "
                "one, or none"
            )
        return self


def _require_different(columns: dict[Column, str]) -> None:
    """Refuse a column that stands for two."""
    for theirs in columns.values():
        ours = [name for name, value in columns.items() if value == theirs]
        if len(ours) > 1:
            raise ValueError(f"columns: {theirs} stands for {' and '.join(ours)}; keep one")
