"""Reading the rows of one file as a stream: whatever its size, little of it is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO

from llm_engineering.data.read.csv_table import read_csv
from llm_engineering.data.read.files import DataFile
from llm_engineering.data.read.json_list import read_json
from llm_engineering.data.read.jsonl import JsonLine, json_lines
from llm_engineering.data.read.parquet import read_parquet
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.errors import DataError

UnparsedRow = Row | BadRow | JsonLine
"""A row as it is read; that of a line is parsed by ``parsed``."""

_READERS: dict[str, Callable[[str, IO[bytes]], Iterator[UnparsedRow]]] = {
    ".jsonl": json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def parsed(row: UnparsedRow) -> Row | BadRow:
    """A row as its columns, or why it cannot be read."""
    return row.parse() if isinstance(row, JsonLine) else row


def read_file(file: DataFile) -> Iterator[Row | BadRow]:
    """As ``unparsed_rows``, with every row parsed."""
    return map(parsed, unparsed_rows(file))


def unparsed_rows(file: DataFile) -> Iterator[UnparsedRow]:
    """Yield the rows of a file in order, and a ``BadRow`` where one cannot be read.

    Raises:
        DataError: The file is unreadable as a whole, or from a line on, which is named.
    """
    read = _READERS[file.kind]
    try:
        with file.open() as stream:
            yield from read(file.name, stream)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"data source {file.name}: cannot be read ({reason})") from None
