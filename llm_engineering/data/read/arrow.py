"""Arrow: a stream, as ``datasets`` saves its tables, or a file (Feather), read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from llm_engineering.data.read.row import Row
from llm_engineering.data.read.table import file_rows

_MAGIC = b"ARROW1"  # begins a file, and no stream


def read_arrow(name: str, stream: IO[bytes]) -> Iterator[Row]:
    """The rows of a file, as ``file_rows``."""
    return file_rows(name, "Arrow", _batches(stream))


def _batches(stream: IO[bytes]) -> Iterator[Any]:
    import pyarrow

    is_file = stream.read(len(_MAGIC)) == _MAGIC
    stream.seek(0)
    if is_file:
        reader = pyarrow.ipc.open_file(stream)
        yield from (reader.get_batch(index) for index in range(reader.num_record_batches))
    else:
        yield from pyarrow.ipc.open_stream(stream)
