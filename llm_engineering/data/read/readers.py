"""Reading the rows of one file as a stream: whatever its size, little of it is in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO

from llm_engineering.data.read.csv_table import read_csv
from llm_engineering.data.read.files import DataFile
from llm_engineering.data.read.json_list import read_json
from llm_engineering.data.read.jsonl import read_jsonl
from llm_engineering.data.read.parquet import read_parquet
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.errors import DataError

_READERS: dict[str, Callable[[str, IO[bytes]], Iterator[Row | BadRow]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def read_file(file: DataFile) -> Iterator[Row | BadRow]:
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
