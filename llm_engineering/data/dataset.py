"""The prepared data set: a folder of two tokenized splits, and a summary of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.audit import LabelAudit

if TYPE_CHECKING:
    import datasets

_SUMMARY = "summary.json"


class SourceSummary(BaseModel):
    """One source and how many rows were read from it, bad ones included."""

    source: str
    rows: int


class DatasetSummary(BaseModel):
    """What the data is, for the report, the manifest and the dashboard."""

    sources: list[SourceSummary]
    bad_rows: list[str] = Field(description="Each skipped row: file:line and the reason.")
    train: LabelAudit
    held_out: LabelAudit
    digest: str = Field(description="SHA-256 over all token ids and labels, in order.")
    held_out_digest: str = Field(description="The same over the held-out rows alone.")

    @property
    def figures(self) -> dict[str, int | str]:
        """Rows, tokens and what was skipped or cut, by name."""
        return {
            "train_rows": self.train.rows,
            "train_row_tokens": self.train.tokens,
            "trained_tokens": self.train.trained_tokens,
            "truncated_rows": self.train.truncated_rows,
            "held_out_rows": self.held_out.rows,
            "held_out_row_tokens": self.held_out.tokens,
            "bad_rows": len(self.bad_rows),
            "digest": self.digest,
        }


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set on disk.

    ``folder`` holds ``train/`` and ``held_out/`` (Arrow; columns ``input_ids``, ``labels``,
    ``origin``, ``messages``) and ``summary.json``.
    """

    folder: Path
    summary: DatasetSummary

    @classmethod
    def write(
        cls, folder: Path, splits: dict[str, dict[str, list[Any]]], summary: DatasetSummary
    ) -> PreparedDataset:
        """Write the splits and their summary into ``folder``."""
        import datasets

        features = datasets.Features(
            {
                "input_ids": datasets.List(datasets.Value("int32")),
                "labels": datasets.List(datasets.Value("int32")),
                "origin": datasets.Value("string"),
                "messages": datasets.Value("string"),
            }
        )
        for name, columns in splits.items():
            split = datasets.Dataset.from_dict(columns, features=features)
            split.save_to_disk(folder / name)
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
