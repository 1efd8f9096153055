"""Rows of a table with types, in which every object has the keys of all: null where it has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llm_engineering.data.read.row import Row
from llm_engineering.errors import DataError

_ROWS = 256  # in memory at a time


def file_rows(name: str, kind: str, batches: Iterator[Any]) -> Iterator[Row]:
    """Yield the rows of a file in order; they are numbered from 1.

    Args:
        name: Of the file.
        kind: Of it, as readers know it.
        batches: Its ``pyarrow.RecordBatch`` objects; the file is opened as they are taken.

    Raises:
        DataError: It is not readable, as a whole or from a row on.
    """
    import pyarrow

    number = 0
    try:
        for batch in batches:
            for values in table_rows(batch):
                number += 1
                yield Row(f"{name}:row {number}", values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        where = f"{name}:row {number + 1}" if number else name
        raise DataError(f"{where}: is not a readable {kind} file: {error}") from None


def table_rows(batch: Any) -> Iterator[dict[str, object]]:
    """The rows of a ``pyarrow.RecordBatch``; their objects hold no null."""
    import pyarrow

    nested = [field.name for field in batch.schema if pyarrow.types.is_nested(field.type)]
    for start in range(0, batch.num_rows, _ROWS):
        for values in batch.slice(start, _ROWS).to_pylist():
            for name in nested:
                values[name] = without_nulls(values[name])
            yield values


def without_nulls(value: Any) -> Any:
    """A value whose objects lack the keys that hold null: a table has them for other rows' sake.

    Otherwise a tool's schema or a call's arguments would show the model every key of all others.
    """
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    return value


def without_nulls_inside(values: dict[str, object]) -> dict[str, object]:
    """A row whose columns' values are without nulls; a column may be null itself."""
    return {
        name: without_nulls(value) if isinstance(value, dict | list) else value
        for name, value in values.items()
    }
