"""Checked rows on disk, between reading and tokenizing: whatever their number, few are in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 1000  # rows
_BATCH_CHARACTERS = 4 * 2**20  # or so many, if rows are long


@dataclass(frozen=True)
class SpooledRow:
    """A checked row: its place in the spool, where it came from, and what it holds, as JSON."""

    index: int
    origin: str
    text: str

    @property
    def item(self) -> Any:
        """What it holds, as it was added."""
        return json.loads(self.text)


class Spool:
    """A file that rows are appended to, and then read from in their order."""

    def __init__(self, path: Path) -> None:
        import pyarrow

        self.path = path
        text = pyarrow.large_string()
        self._schema = pyarrow.schema([("origin", text), ("text", text)])
        self._file: Any = pyarrow.OSFile(str(path), "wb")
        self._writer: Any = pyarrow.ipc.new_stream(self._file, self._schema)
        self._origins: list[str] = []
        self._texts: list[str] = []
        self._characters = 0
        self.rows = 0

    def add(self, origin: str, item: Any) -> None:
        """Append a row, which JSON can hold."""
        self._origins.append(origin)
        text = json.dumps(item, ensure_ascii=False)
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

    def read(self, chosen: NDArray[Any]) -> Iterator[list[SpooledRow]]:
        """The rows with these indices, which ascend, in batches."""
        import pyarrow

        # Read, not mapped: mapped pages would count as this process's memory.
        with pyarrow.OSFile(str(self.path), "rb") as file:
            start = 0
            for batch in pyarrow.ipc.open_stream(file):
                end = start + batch.num_rows
                low, high = chosen.searchsorted([start, end])
                if high > low:
                    part = batch.take(pyarrow.array(chosen[low:high] - start))
                    columns = [column.to_pylist() for column in part.columns]
                    yield [
                        SpooledRow(int(index), origin, text)
                        for index, origin, text in zip(chosen[low:high], *columns, strict=True)
                    ]
                start = end

    def origins(self, indices: Sequence[int]) -> dict[int, str]:
        """Where the rows with these few indices came from."""
        import numpy

        chosen = numpy.unique(numpy.asarray(indices, dtype=numpy.int64))
        return {row.index: row.origin for batch in self.read(chosen) for row in batch}

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
