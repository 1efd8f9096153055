"""Parquet: columns with types, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from llm_engineering.data.read.row import Row
from llm_engineering.data.read.table import file_rows

_ROWS = 256  # in memory at a time


def read_parquet(name: str, stream: IO[bytes]) -> Iterator[Row]:
    """The rows of a file, as ``file_rows``."""
    return file_rows(name, "Parquet", _batches(stream))


def _batches(stream: IO[bytes]) -> Iterator[Any]:
    import pyarrow.parquet

    yield from pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=_ROWS)
