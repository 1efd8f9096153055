"""Reading the rows of one file as a stream: whatever its size, little of it is in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO

from llm_engineering.data.read.arrow import read_arrow
from llm_engineering.data.read.csv_table import read_csv
from llm_engineering.data.read.files import DataFile
from llm_engineering.data.read.json_list import read_json
from llm_engineering.data.read.jsonl import JsonLine, json_lines
from llm_engineering.data.read.parquet import read_parquet
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.text_lines import read_text_lines
from llm_engineering.errors import DataError

UnparsedRow = Row | BadRow | JsonLine
"""A row as it is read; that of a line is parsed by ``parsed``."""
Reader = Callable[[str, IO[bytes]], Iterator[UnparsedRow]]

_READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}


def parsed(row: UnparsedRow) -> Row | BadRow:
    """A row as its columns, or why it cannot be read."""
    return row.parse() if isinstance(row, JsonLine) else row


def unparsed_rows(file: DataFile, unread: Counter[str]) -> Iterator[UnparsedRow]:
    """Yield the rows of a file in order, and a ``BadRow`` where one cannot be read.

    Args:
        file: The file.
        unread: Counts what it holds beside rows.

    Raises:
        DataError: The file is unreadable as a whole, or from a line on, which is named.
    """
    if file.kind == ".json":
        read: Reader = partial(
            read_json, split=file.split, default_split=file.default_split, unread=unread
        )
    elif file.kind == ".txt":
        read = partial(read_text_lines, unread=unread)
    else:
        read = _READERS[file.kind]
    try:
        with file.open() as stream:
            yield from read(file.name, stream)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"data source {file.name}: cannot be read ({reason})") from None
