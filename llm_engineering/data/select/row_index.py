"""The rows of every source, checked, in the spool; and of each what it is compared by."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.data import DataSettings
from llm_engineering.data.dataset import SourceSummary
from llm_engineering.data.objective_rows import RowKind
from llm_engineering.data.progress import row_bar
from llm_engineering.data.read.rows import BadRow, BadRows, Row
from llm_engineering.data.read.sources import read_rows
from llm_engineering.data.rows.forms import Form, UnusableRowError
from llm_engineering.data.rows.row_store import Spool
from llm_engineering.data.select.split import place_of_group

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CheckedRows:
    """Checked rows by their number in the spool, those of ``data.held_out.source`` last.

    A row of a source that gives several items is as many of them.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
        self.sources: list[SourceSummary] = []
        self.bad = BadRows()
        self._source: array[int] = array("H")
        self._begins: array[int] = array("B")
        self._exact: array[int] = array("Q")
        self._place: array[int] = array("Q")
        self._leaks: array[int] = array("Q")

    @property
    def source(self) -> NDArray[Any]:
        """Number of each row's source, shape ``(rows,)``."""
        return _numbers(self._source)

    @property
    def begins(self) -> NDArray[Any]:
        """1 where a row of the source begins, 0 where it goes on with another item."""
        return _numbers(self._begins)

    @property
    def exact(self) -> NDArray[Any]:
        """``Keys.exact`` of each row."""
        return _numbers(self._exact)

    @property
    def place(self) -> NDArray[Any]:
        """``Keys.place``, or that of the row's group."""
        return _numbers(self._place)

    @property
    def leaks(self) -> NDArray[Any]:
        """``Keys.leaks``."""
        return _numbers(self._leaks)

    def read(self, kind: RowKind, data: DataSettings, seed: int) -> None:
        """Read every source.

        Raises:
            DataError: A source is missing or unreadable.
        """
        for source in data.sources:
            rows = read_rows(source.source, split=source.split, revision=source.revision)
            self._read_source(
                kind,
                source.source,
                islice(rows, source.max_rows),
                seed,
                form=source.form,
                group=data.held_out.group,
            )
        held = data.held_out
        if held.source:
            rows = read_rows(held.source, split=held.split, revision=held.revision)
            self._read_source(kind, held.source, rows, seed)
        self.spool.close()

    def _read_source(
        self,
        kind: RowKind,
        name: str,
        rows: Iterable[Row | BadRow],
        seed: int,
        *,
        form: Form | None = None,
        group: str | None = None,
    ) -> None:
        number, count = len(self.sources), 0
        stated, first = form, ""
        bar = row_bar(f"reading {name}")
        for row in rows:
            count += 1
            bar.update()
            if isinstance(row, BadRow):
                self.bad.add(row)
                continue
            try:
                found = stated or kind.form_of(row.values)
                if form is not None and found != form:
                    raise UnusableRowError(
                        f"is of the form {found}, and {first} is {form}; a source has one form: "
                        f"make two of it, or state its form"
                    )
                items = kind.read(row.values, found)
                place = None if group is None else place_of_group(row.values, group, seed)
            except UnusableRowError as reason:
                self.bad.add(BadRow(row.origin, str(reason)))
                continue
            if form is None:
                form, first = found, row.origin
            for place_in_row, item in enumerate(items):
                keys = kind.keys(item, seed)
                self.spool.add(row.origin, item)
                self._source.append(number)
                self._begins.append(place_in_row == 0)
                self._exact.append(keys.exact)
                self._place.append(keys.place if place is None else place)
                self._leaks.append(keys.leaks)
        bar.close()
        self.sources.append(SourceSummary(source=name, rows=count, form=form))


def _numbers(values: array[int]) -> NDArray[Any]:
    import numpy

    return numpy.asarray(values)  # the array's own memory
