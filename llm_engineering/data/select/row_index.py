"""Reading the rows of every source into the store, and keeping of each what it is compared by."""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llm_engineering.configuration.data import DataSettings, DataSource, HeldOutSettings
from llm_engineering.data.objective_rows.objective_rows import ObjectiveRows
from llm_engineering.data.progress import row_bar
from llm_engineering.data.read.row import BadRow, BadRows
from llm_engineering.data.read.sources import read_rows
from llm_engineering.data.rows.columns import map_columns
from llm_engineering.data.rows.keys import group_split_key
from llm_engineering.data.rows.row_store import RowStore
from llm_engineering.data.rows.unread import Unread, count_unread, shown_name
from llm_engineering.data.rows.unusable import UnusableRowError
from llm_engineering.data.summary import SourceSummary

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")


class RowIndex(Generic[ItemT]):
    """Checked rows by their number in the store, those of ``data.held_out.source`` last.

    A row of a source that gives several items is as many of them.
    """

    def __init__(self, store: RowStore[ItemT]) -> None:
        self.store = store
        self.sources: list[SourceSummary] = []
        self.bad = BadRows()
        self._source: array[int] = array("H")
        self._begins: array[int] = array("B")
        self._equal: array[int] = array("Q")
        self._split: array[int] = array("Q")
        self._leak: array[int] = array("Q")

    @property
    def source(self) -> NDArray[numpy.uint16]:
        """Number of each row's source, shape ``(rows,)``."""
        return _numbers(self._source)

    @property
    def begins(self) -> NDArray[numpy.uint8]:
        """1 where a row of the source begins, 0 where it goes on with another item."""
        return _numbers(self._begins)

    @property
    def equal_keys(self) -> NDArray[numpy.uint64]:
        """``RowKeys.equal`` of each row."""
        return _numbers(self._equal)

    @property
    def split_keys(self) -> NDArray[numpy.uint64]:
        """``RowKeys.split``, or that of the row's group."""
        return _numbers(self._split)

    @property
    def leak_keys(self) -> NDArray[numpy.uint64]:
        """``RowKeys.leak``."""
        return _numbers(self._leak)

    def read(
        self, objective_rows: ObjectiveRows[ItemT, TokensT], data: DataSettings, seed: int
    ) -> None:
        """Read every source.

        Raises:
            DataError: A source is missing or unreadable.
        """
        for number, source in enumerate(data.sources):
            self._read_source(
                objective_rows,
                f"data.sources.{number}",
                source,
                seed,
                default_split="train",
                max_rows=source.max_rows,
                group=data.held_out.group,
            )
        if data.held_out.source:
            self._read_source(
                objective_rows, "data.held_out", data.held_out, seed, default_split="test"
            )
        self.store.close()

    def _read_source(
        self,
        objective_rows: ObjectiveRows[ItemT, TokensT],
        key: str,
        source: DataSource | HeldOutSettings,
        seed: int,
        *,
        default_split: str,
        max_rows: int | None = None,
        group: str | None = None,
    ) -> None:
        number, count, name = len(self.sources), 0, source.source or ""
        form, first = source.form, ""
        unread: Counter[str] = Counter()
        rows = read_rows(
            name,
            split=source.split,
            default_split=default_split,
            subset=source.subset,
            revision=source.revision,
            max_rows=max_rows,
            unread=unread,
        )
        bar = row_bar(f"reading {name}")
        for row in rows:
            count += 1
            bar.update()
            if isinstance(row, BadRow):
                self.bad.add(row)
                continue
            names: Unread = set()
            try:
                values = map_columns(row.values, source.columns, names)
                found = source.form or objective_rows.form_of(values)
                if form is not None and found != form:
                    raise UnusableRowError(
                        f"is of the form {found}, and {first} is {form}; a source has one form: "
                        f"make two of it, or state its form"
                    )
                items = objective_rows.read(values, found, names)
                group_key = None if group is None else group_split_key(row.values, group, seed)
            except UnusableRowError as reason:
                self.bad.add(BadRow(row.origin, str(reason)))
                continue
            if form is None:
                form, first = found, row.origin
            if group is not None:
                names.discard(f"column {shown_name(group)}")
            if names:
                count_unread(unread, names)
            for position, item in enumerate(items):
                keys = objective_rows.keys(item, seed)
                self.store.add(row.origin, item)
                self._source.append(number)
                self._begins.append(position == 0)
                self._equal.append(keys.equal)
                self._split.append(keys.split if group_key is None else group_key)
                self._leak.append(keys.leak)
        bar.close()
        listed = dict(unread.most_common())
        if listed:
            logger.warning(
                "%s (%s): not read: %s",
                key,
                name,
                ", ".join(f"{what} ({times:,})" for what, times in listed.items()),
            )
        self.sources.append(SourceSummary(source=name, rows=count, form=form, unread=listed))


def _numbers(values: array[int]) -> NDArray[Any]:
    import numpy

    return numpy.asarray(values)  # the array's own memory
