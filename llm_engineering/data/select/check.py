"""Checking rows, a batch at a time: from their columns to what is stored and compared of them."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from llm_engineering.configuration.data import Column, RowForm
from llm_engineering.data.objective_rows.objective_rows import ObjectiveRows
from llm_engineering.data.read.jsonl import JsonLine
from llm_engineering.data.read.readers import UnparsedRow, parsed
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.rows.columns import map_columns
from llm_engineering.data.rows.keys import group_key
from llm_engineering.data.rows.row_store import JsonText, to_stored
from llm_engineering.data.rows.unread import Unread, count_unread, shown_name
from llm_engineering.data.rows.unusable import UnusableRowError

ItemT = TypeVar("ItemT")
TokensT = TypeVar("TokensT")

BATCH_ROWS = 1000
_BATCH_CHARACTERS = 4 * 2**20  # or so many, if rows are long


@dataclass(frozen=True)
class CheckedBatch:
    """What came of a batch: its items, which a row may give several of, and its bad rows."""

    rows: int
    stored: Any
    """The items, as ``to_stored`` gives them."""
    begins: array[int]
    """1 where a row begins, 0 where it goes on with another item."""
    equal: array[int]
    """``RowKeys.equal`` of each item."""
    prompt: array[int]
    """``RowKeys.prompt``."""
    group: array[int]
    """``group_key`` of each item; empty where no column groups them."""
    bad: list[BadRow]
    form: RowForm | None
    first: str
    """Origin of the source's first good row so far, whose form the others must have; or empty."""
    unread: Counter[str]
    """What the rows hold and nothing reads, and in how many."""


@dataclass(frozen=True)
class CheckRows(Generic[ItemT, TokensT]):
    """Checks batches of one source; runs in a worker once the form of the rows is known.

    ``stated`` is the source's form if the configuration gives it; ``form`` and ``first`` are as of
    ``CheckedBatch``; ``group`` is the column that groups rows, ``columns`` the rows' own names of
    ours.
    """

    objective_rows: ObjectiveRows[ItemT, TokensT]
    stated: RowForm | None
    group: str | None
    columns: Mapping[Column, str] = field(default_factory=dict)
    form: RowForm | None = None
    first: str = ""

    def __call__(self, rows: Sequence[UnparsedRow]) -> CheckedBatch:
        """Check a batch, whose rows are in their order."""
        form, first = self.form or self.stated, self.first
        origins: list[str] = []
        texts: list[JsonText] = []
        begins, equal, prompt, group = array("B"), array("Q"), array("Q"), array("Q")
        bad: list[BadRow] = []
        unread: Counter[str] = Counter()
        for unparsed in rows:
            row = parsed(unparsed)
            if isinstance(row, BadRow):
                bad.append(row)
                continue
            names: Unread = set()
            try:
                values = map_columns(row.values, self.columns, names)
                found = self.stated or self.objective_rows.form_of(values)
                if form is not None and found != form:
                    raise UnusableRowError(
                        f"is of the form {found}, and {first} is {form}; a source has one form: "
                        f"make two of it, or state its form"
                    )
                items = self.objective_rows.read(values, found, names)
                shared = None if self.group is None else group_key(row.values, self.group)
            except UnusableRowError as reason:
                bad.append(BadRow(row.origin, str(reason)))
                continue
            if not first:
                form, first = found, row.origin
            if names:
                if self.group is not None:
                    names.discard(f"column {shown_name(self.group)}")
                count_unread(unread, names)
            for position, item in enumerate(items):
                keys = self.objective_rows.keys(item)
                stated = self.objective_rows.to_json(item)
                origins.append(row.origin)
                texts.append(JsonText(json.dumps(stated, ensure_ascii=False)))
                begins.append(position == 0)
                equal.append(keys.equal)
                prompt.append(keys.prompt)
                if shared is not None:
                    group.append(shared)
        stored = to_stored(origins, texts)
        form = form if first else None
        return CheckedBatch(
            len(rows), stored, begins, equal, prompt, group, bad, form, first, unread
        )


def in_batches(rows: Iterable[UnparsedRow]) -> Iterator[list[UnparsedRow]]:
    """The rows in their order, few enough at a time for their texts to be in memory."""
    batch: list[UnparsedRow] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += _size(row)
        if len(batch) == BATCH_ROWS or characters > _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _size(row: UnparsedRow) -> int:
    if isinstance(row, JsonLine):
        return len(row.raw)
    return _characters(row.values) if isinstance(row, Row) else 0


def _characters(value: object) -> int:
    """Characters of all texts in a value, about."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 0
