"""Parquet: columns with types, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.table import table_rows
from llm_engineering.errors import DataError

_ROWS = 256  # in memory at a time


def read_parquet(name: str, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order; they are numbered from 1.

    Raises:
        DataError: It is not a readable Parquet file, as a whole or from a row on.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(stream)
        for batch in table.iter_batches(batch_size=_ROWS):
            for values in table_rows(batch):
                number += 1
                yield Row(f"{name}:row {number}", values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        where = f"{name}:row {number + 1}" if number else name
        raise DataError(f"{where}: is not a readable Parquet file: {error}") from None
