"""The prepared data set: a folder of two tokenized splits, and a summary of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.select.duplicates import Repeats
from llm_engineering.data.tokens.audit import LabelAudit

if TYPE_CHECKING:
    import datasets

_SUMMARY = "summary.json"
_ARROW_FILE = "data-00000-of-00001.arrow"
SUPERVISED_COLUMNS: Mapping[str, str] = {
    "input_ids": "ids",
    "labels": "ids",
    "origin": "string",
    "messages": "string",
    "prompt_tokens": "int32",
    "answer": "int32",
}
"""Columns of prepared conversations; ``prompt_tokens`` and ``answer`` as in ``TokenizedRow``."""


class SourceSummary(BaseModel):
    """One source and how many rows were read from it, bad ones included."""

    source: str
    rows: int
    form: str | None = Field(None, description="Form of its rows; none was good: None.")
    used: int | None = Field(None, description="Rows of it that are trained or evaluated on.")


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
    digest: str = Field(description="SHA-256 over all token ids and labels, in order.")
    held_out_digest: str = Field(description="The same over the held-out rows alone.")

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


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set on disk.

    ``folder`` holds ``train/`` and ``held_out/`` (Arrow; columns of ``SupervisedRows`` or of
    ``PreferenceRows``) and ``summary.json``.
    """

    folder: Path
    summary: DatasetSummary

    @classmethod
    def write(
        cls, folder: Path, splits: dict[str, dict[str, list[Any]]], summary: DatasetSummary
    ) -> PreparedDataset:
        """Write the splits and their summary into ``folder``."""
        for name, columns in splits.items():
            with SplitWriter(folder / name) as split:
                split.add(columns)
        (folder / _SUMMARY).write_text(summary.model_dump_json(indent=2), encoding="utf-8")
        return cls(folder, summary)

    @classmethod
    def read(cls, folder: Path) -> PreparedDataset:
        """Open a folder that ``write`` made."""
        text = (folder / _SUMMARY).read_text(encoding="utf-8")
        return cls(folder, DatasetSummary.model_validate_json(text))

    def split(self, name: str) -> datasets.Dataset:
        """Open one split ("train" or "held_out"), memory-mapped."""
        import datasets

        return datasets.Dataset.load_from_disk(self.folder / name)


class SplitWriter:
    """Writes one split batch by batch, as ``datasets`` stores it; few rows are in memory."""

    def __init__(self, folder: Path, columns: Mapping[str, str] = SUPERVISED_COLUMNS) -> None:
        """Begin a split.

        Args:
            folder: Is not there yet.
            columns: Each "ids" (a list of int32), or a type of ``datasets.Value``.
        """
        import datasets
        import pyarrow

        features = datasets.Features(
            {
                name: datasets.List(datasets.Value("int32"))
                if kind == "ids"
                else datasets.Value(kind)
                for name, kind in columns.items()
            }
        )
        # The library writes what surrounds the rows; they then take this one's place.
        first: dict[str, list[Any]] = {name: [None] for name in columns}
        datasets.Dataset.from_dict(first, features=features).save_to_disk(folder)
        self._schema = features.arrow_schema
        self._folder = folder
        self._file = pyarrow.OSFile(str(folder / _ARROW_FILE), "wb")
        self._writer = pyarrow.ipc.new_stream(self._file, self._schema)

    def add(self, columns: dict[str, list[Any]]) -> None:
        """Append rows, given by column."""
        import pyarrow

        arrays = [pyarrow.array(columns[field.name], type=field.type) for field in self._schema]
        self._writer.write_batch(pyarrow.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """Finish the split."""
        self._writer.close()
        self._file.close()
        state = self._folder / "state.json"
        values = json.loads(state.read_text(encoding="utf-8"))
        values["_fingerprint"] = secrets.token_hex(8)  # else that of the row above
        state.write_text(json.dumps(values, indent=2), encoding="utf-8")

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
