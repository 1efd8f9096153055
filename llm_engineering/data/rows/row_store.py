"""Checked rows on disk, between reading and tokenizing: whatever their number, few are in memory."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NewType, TypeVar

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    RowNumbers = NDArray[numpy.intp]
    """Numbers of rows in a store, which count from 0 in the order they were added."""

ItemT = TypeVar("ItemT")
JsonText = NewType("JsonText", str)

_OPEN_BATCHES = 8


@dataclass(frozen=True, slots=True)
class StoredRow(Generic[ItemT]):
    """A checked row: its number in the store, where it came from, and what it says."""

    number: int
    origin: str
    text: JsonText
    """The item as JSON."""
    item: ItemT


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """Rows as they are stored, which other processes can be given."""

    numbers: RowNumbers
    stored: Any
    """A ``pyarrow.RecordBatch`` of columns origin and text."""

    def rows(self, from_json: Callable[[Any], ItemT]) -> list[StoredRow[ItemT]]:
        """The rows, their items made from JSON."""
        columns = [column.to_pylist() for column in self.stored.columns]
        return [
            StoredRow(number, origin, text, from_json(json.loads(text)))
            for number, origin, text in zip(self.numbers.tolist(), *columns, strict=True)
        ]


def to_stored(origins: Sequence[str], texts: Sequence[JsonText]) -> Any:
    """Rows as a store takes them: where they came from (``file:line``), and their items as JSON."""
    import pyarrow

    kind = pyarrow.large_string()
    arrays = [pyarrow.array(one, type=kind) for one in (origins, texts)]
    return pyarrow.record_batch(arrays, names=["origin", "text"])


class RowStore(Generic[ItemT]):
    """A file that rows are appended to, and then read from in their order, or singly."""

    def __init__(self, path: Path, from_json: Callable[[Any], ItemT]) -> None:
        """Begin a store.

        Args:
            path: The file; it is overwritten.
            from_json: Turns a stored row's JSON into its item.
        """
        import pyarrow

        self.path = path
        self.from_json = from_json
        self._size = 0  # bytes
        self._starts = [0]  # of each batch, and where the next would start
        self._file: Any = pyarrow.OSFile(str(path), "wb")
        self._writer: Any = pyarrow.ipc.new_file(self._file, to_stored([], []).schema)
        self._reader: Any = None
        self._batch = lru_cache(maxsize=_OPEN_BATCHES)(self._read_batch)

    @property
    def rows(self) -> int:
        """How many were added."""
        return self._starts[-1]

    def size_of(self, numbers: RowNumbers) -> int:
        """Bytes of the rows with these numbers, if they are as long as all are on average."""
        return self._size * len(numbers) // max(1, self.rows)

    def add(self, batch: Any) -> None:
        """Append rows, as ``to_stored`` gives them; they are read as batches of the same size."""
        if batch.num_rows:
            self._writer.write_batch(batch)
            self._starts.append(self._starts[-1] + batch.num_rows)
            self._size += batch.nbytes

    def close(self) -> None:
        """No more rows come; those there are can be read."""
        import pyarrow

        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None
            # Read, not mapped: mapped pages would count as this process's memory.
            self._file = pyarrow.OSFile(str(self.path), "rb")
            self._reader = pyarrow.ipc.open_file(self._file)

    def remove(self) -> None:
        """Delete the file."""
        self.close()
        self._batch.cache_clear()
        self._file.close()
        self.path.unlink(missing_ok=True)

    def batches(self, numbers: RowNumbers) -> Iterator[StoredBatch]:
        """The rows with these numbers, which ascend, as they are stored."""
        import pyarrow

        for place, start in enumerate(self._starts[:-1]):
            low, high = numbers.searchsorted([start, self._starts[place + 1]])
            if high > low:
                chosen = numbers[low:high]
                batch = self._read_batch(place)
                if len(chosen) < batch.num_rows:
                    batch = batch.take(pyarrow.array(chosen - start))
                yield StoredBatch(chosen, batch)

    def read(self, numbers: RowNumbers) -> Iterator[list[StoredRow[ItemT]]]:
        """The rows with these numbers, which ascend, in batches."""
        for batch in self.batches(numbers):
            yield batch.rows(self.from_json)

    def row(self, number: int) -> StoredRow[ItemT]:
        """The row with this number; those near it are kept at hand."""
        import numpy

        place = bisect_right(self._starts, number) - 1
        one = self._batch(place).slice(number - self._starts[place], 1)
        return StoredBatch(numpy.array([number]), one).rows(self.from_json)[0]

    def origins(self, numbers: Sequence[int]) -> dict[int, str]:
        """Where the rows with these few numbers came from."""
        return {number: self.row(number).origin for number in sorted(set(numbers))}

    def _read_batch(self, place: int) -> Any:
        return self._reader.get_batch(place)
