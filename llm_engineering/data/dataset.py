"""The prepared data set: a folder of two tokenized splits, and a summary of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin, get_type_hints

from llm_engineering.data.summary import DatasetSummary
from llm_engineering.data.tokens.prepared import PreparedRow

if TYPE_CHECKING:
    import datasets

_SUMMARY = "summary.json"
_ROWS = "data-00000-of-00001.arrow"  # as ``datasets`` names it
_ARROW_TYPES = {str: "string", int: "int32", bool: "bool"}


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set on disk.

    ``folder`` holds ``train/``, ``held_out/`` and, where training looks at some, ``validation/``
    (Arrow; columns as in ``tokens/prepared.py``), and ``summary.json``.
    """

    folder: Path
    summary: DatasetSummary

    @classmethod
    def write(cls, folder: Path, summary: DatasetSummary) -> PreparedDataset:
        """Write the summary beside the splits, which are in ``folder`` already."""
        (folder / _SUMMARY).write_text(summary.model_dump_json(indent=2), encoding="utf-8")
        return cls(folder, summary)

    @classmethod
    def read(cls, folder: Path) -> PreparedDataset:
        """Open a folder that ``write`` made."""
        text = (folder / _SUMMARY).read_text(encoding="utf-8")
        return cls(folder, DatasetSummary.model_validate_json(text))

    def split(self, name: str) -> datasets.Dataset:
        """Open one split ("train", "held_out" or "validation"), memory-mapped."""
        import datasets

        return datasets.Dataset.from_file(str(self.folder / name / _ROWS))

    def validation(self) -> datasets.Dataset | None:
        """The held-out rows that training looks at; None: it looks at none of its own."""
        return None if self.summary.validation is None else self.split("validation")


class SplitWriter:
    """Writes one split batch by batch; few rows are in memory."""

    def __init__(self, folder: Path, columns: type[PreparedRow]) -> None:
        """Begin a split.

        Args:
            folder: Receives the file; made if it is not there.
            columns: The class of its rows.
        """
        from datasets import Features
        from datasets.arrow_writer import ArrowWriter

        hints = get_type_hints(columns)
        features = Features({one.name: _feature(hints[one.name]) for one in fields(columns)})
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = ArrowWriter(features=features, path=str(folder / _ROWS))

    @property
    def schema(self) -> Any:
        """Its columns, a ``pyarrow.Schema``, which ``to_table`` wants."""
        return self._writer.schema

    def add(self, table: Any) -> None:
        """Append rows, as ``to_table`` gives them for this split's schema."""
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the split."""
        self._writer.finalize()

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def to_table(rows: Sequence[PreparedRow], schema: Any) -> Any:
    """Rows as a ``pyarrow.Table``; they are of the class that their split was begun with."""
    import pyarrow

    arrays = [
        pyarrow.array([getattr(row, field.name) for row in rows], type=field.type)
        for field in schema
    ]
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def _feature(hint: Any) -> Any:
    """A column's type in ``datasets``, by that of its field; lists are of token ids."""
    from datasets import List, Value

    if get_origin(hint) is list:
        return List(Value("int32"))
    return Value(_ARROW_TYPES[getattr(hint, "__supertype__", hint)])
