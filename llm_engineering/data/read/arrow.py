"""Arrow: a stream, as ``datasets`` saves its tables, or a file (Feather), read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.table import table_rows
from llm_engineering.errors import DataError

_MAGIC = b"ARROW1"  # begins a file, and no stream


def read_arrow(name: str, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order; they are numbered from 1.

    Raises:
        DataError: It is not readable Arrow, as a whole or from a row on.
    """
    import pyarrow

    number = 0
    try:
        for batch in _batches(stream):
            for values in table_rows(batch):
                number += 1
                yield Row(f"{name}:row {number}", values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        where = f"{name}:row {number + 1}" if number else name
        raise DataError(f"{where}: is not a readable Arrow file: {error}") from None


def _batches(stream: IO[bytes]) -> Iterator[Any]:
    import pyarrow

    is_file = stream.read(len(_MAGIC)) == _MAGIC
    stream.seek(0)
    if is_file:
        reader = pyarrow.ipc.open_file(stream)
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        yield from pyarrow.ipc.open_stream(stream)
