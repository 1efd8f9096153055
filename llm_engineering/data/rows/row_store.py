"""Checked rows on disk, between reading and tokenizing: whatever their number, few are in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NewType, TypeVar

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    RowNumbers = NDArray[numpy.intp]
    """Numbers of rows in a store, which count from 0 in the order they were added."""

ItemT = TypeVar("ItemT")
JsonText = NewType("JsonText", str)

_BATCH = 1000  # rows
_BATCH_CHARACTERS = 4 * 2**20  # or so many, if rows are long


@dataclass(frozen=True, slots=True)
class StoredRow(Generic[ItemT]):
    """A checked row: its number in the store, where it came from, and what it says."""

    number: int
    origin: str
    text: JsonText
    """The item as JSON."""
    item: ItemT


class RowStore(Generic[ItemT]):
    """A file that rows are appended to, and then read from in their order."""

    def __init__(
        self, path: Path, to_json: Callable[[ItemT], Any], from_json: Callable[[Any], ItemT]
    ) -> None:
        """Begin a store.

        Args:
            path: The file; it is overwritten.
            to_json: Turns an item into what JSON can hold.
            from_json: Turns that into the item again.
        """
        import pyarrow

        self.path = path
        self.rows = 0
        self._to_json, self._from_json = to_json, from_json
        text = pyarrow.large_string()
        self._schema = pyarrow.schema([("origin", text), ("text", text)])
        self._file: Any = pyarrow.OSFile(str(path), "wb")
        self._writer: Any = pyarrow.ipc.new_stream(self._file, self._schema)
        self._origins: list[str] = []
        self._texts: list[str] = []
        self._characters = 0

    def add(self, origin: str, item: ItemT) -> None:
        """Append a row, which came from ``origin`` (``file:line``)."""
        self._origins.append(origin)
        text = json.dumps(self._to_json(item), ensure_ascii=False)
        self._texts.append(text)
        self._characters += len(text)
        self.rows += 1
        if len(self._origins) == _BATCH or self._characters > _BATCH_CHARACTERS:
            self._write()

    def close(self) -> None:
        """No more rows come; those there are can be read."""
        if self._writer is not None:
            self._write()
            self._writer.close()
            self._file.close()
            self._writer = None

    def read(self, numbers: RowNumbers) -> Iterator[list[StoredRow[ItemT]]]:
        """The rows with these numbers, which ascend, in batches."""
        import pyarrow

        # Read, not mapped: mapped pages would count as this process's memory.
        with pyarrow.OSFile(str(self.path), "rb") as file:
            start = 0
            for batch in pyarrow.ipc.open_stream(file):
                end = start + batch.num_rows
                low, high = numbers.searchsorted([start, end])
                if high > low:
                    part = batch.take(pyarrow.array(numbers[low:high] - start))
                    columns = [column.to_pylist() for column in part.columns]
                    yield [
                        StoredRow(int(number), origin, text, self._from_json(json.loads(text)))
                        for number, origin, text in zip(numbers[low:high], *columns, strict=True)
                    ]
                start = end

    def origins(self, numbers: Sequence[int]) -> dict[int, str]:
        """Where the rows with these few numbers came from."""
        import numpy

        some = numpy.unique(numpy.asarray(numbers, dtype=numpy.intp))
        return {row.number: row.origin for batch in self.read(some) for row in batch}

    def _write(self) -> None:
        import pyarrow

        if self._origins:
            columns = [self._origins, self._texts]
            arrays = [
                pyarrow.array(one, type=kind.type)
                for one, kind in zip(columns, self._schema, strict=True)
            ]
            self._writer.write_batch(pyarrow.record_batch(arrays, schema=self._schema))
            self._origins, self._texts, self._characters = [], [], 0
