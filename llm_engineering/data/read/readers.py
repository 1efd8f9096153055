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
from llm_engineering.data.read.jsonl import read_jsonl
from llm_engineering.data.read.parquet import read_parquet
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.text_lines import read_text_lines
from llm_engineering.errors import DataError

Reader = Callable[[str, IO[bytes]], Iterator[Row | BadRow]]

_READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}


def read_file(file: DataFile, unread: Counter[str]) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order, and a ``BadRow`` where one cannot be read.

    Args:
        file: The file.
        unread: Counts what it holds beside rows.

    Raises:
        DataError: The file is unreadable as a whole, or from a line on, which is named.
    """
    if file.kind == ".json":
        splits = {"split": file.split, "default_split": file.default_split}
        read: Reader = partial(read_json, **splits, unread=unread)
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
