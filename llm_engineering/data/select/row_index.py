"""Reading the rows of every source into the store, and keeping of each what it is compared by."""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llm_engineering.configuration.data import DataSettings
from llm_engineering.data.objective_rows.objective_rows import ObjectiveRows
from llm_engineering.data.progress import row_bar
from llm_engineering.data.read.readers import UnparsedRow
from llm_engineering.data.read.row import BadRows
from llm_engineering.data.read.sources import Asked, read_unparsed, sources_of
from llm_engineering.data.rows.keys import spread
from llm_engineering.data.rows.row_store import RowStore
from llm_engineering.data.select.check import CheckedBatch, CheckRows, in_batches
from llm_engineering.data.summary import SourceSummary
from llm_engineering.data.workers import Workers

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
        self._prompt: array[int] = array("Q")
        self._group: array[int] = array("Q")

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
    def prompt_keys(self) -> NDArray[numpy.uint64]:
        """``RowKeys.prompt`` of each row."""
        return _numbers(self._prompt)

    def split_keys(self, seed: int) -> NDArray[numpy.uint64]:
        """What decides where a row goes, evenly spread: its group, or else its first prompt.

        Args:
            seed: ``data.seed``.
        """
        return spread(_numbers(self._group or self._prompt), seed)

    def read(
        self, objective_rows: ObjectiveRows[ItemT, TokensT], data: DataSettings, workers: Workers
    ) -> None:
        """Read every source.

        Raises:
            DataError: A source is missing or unreadable.
        """
        held_out = data.held_out
        checks = [
            CheckRows(objective_rows, source.form, held_out.group, source.columns)
            for source in data.sources
        ]
        if held_out.source:
            checks.append(CheckRows(objective_rows, held_out.form, None, held_out.columns))
        for (key, name, asked), check in zip(sources_of(data), checks, strict=True):
            self._read_source(key, name, asked, check, workers)
        self.store.close()

    def _read_source(
        self,
        key: str,
        name: str,
        asked: Asked,
        check: CheckRows[ItemT, TokensT],
        workers: Workers,
    ) -> None:
        count, form = 0, check.stated
        unread: Counter[str] = Counter()
        rows = read_unparsed(name, asked, unread)
        bar = row_bar(f"reading {name}")
        for checked in _checked(rows, check, workers):
            count += checked.rows
            form = checked.form
            for bad in checked.bad:
                self.bad.add(bad)
            self.store.add(checked.stored)
            self._source.extend([len(self.sources)] * len(checked.begins))
            self._begins.extend(checked.begins)
            self._equal.extend(checked.equal)
            self._prompt.extend(checked.prompt)
            self._group.extend(checked.group)
            unread.update(checked.unread)
            bar.update(checked.rows)
        bar.close()
        listed = dict(unread.most_common())
        if listed:
            told = ", ".join(f"{what} ({times:,})" for what, times in listed.items())
            logger.info("%s (%s): not read: %s", key, name, told)
        self.sources.append(
            SourceSummary(source=name, rows=count, form=form or check.stated, unread=listed)
        )


def _checked(
    rows: Iterable[UnparsedRow], check: CheckRows[ItemT, TokensT], workers: Workers
) -> Iterator[CheckedBatch]:
    """The batches in their order: here until the rows are many and their form is known."""
    batches, count, size = in_batches(rows), 0, 0
    for batch in batches:
        checked = check(batch)
        yield checked
        count, size = count + checked.rows, size + checked.stored.nbytes
        check = replace(check, form=checked.form, first=checked.first)
        if check.first and workers.pays(count, size):
            break
    for _, checked in workers.map(check, batches, rows=count, size=size):
        yield checked


def _numbers(values: array[int]) -> NDArray[Any]:
    import numpy

    return numpy.asarray(values)  # the array's own memory
