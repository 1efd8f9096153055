"""A JSON file that is one object: a list of rows under a key, splits, columns, or a single row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from llm_engineering.data.read.row import BadRow, Row, object_row
from llm_engineering.errors import DataError

_MESSAGES = frozenset(
    ("messages", "conversations", "conversation", "prompt", "completion", "chosen", "rejected")
)
"""Columns of a row that are themselves lists of objects."""
_OF_A_ROW = _MESSAGES | {"tools", "functions"}


def rows_of_object(
    name: str,
    values: Mapping[str, Any],
    split: str | None,
    default_split: str,
    unread: Counter[str],
) -> Iterator[Row | BadRow]:
    """Yield the rows of an object in order; in a list or in columns they are numbered from 1.

    Args:
        name: Of the file.
        values: The object.
        split: The key whose list is meant, where there are several; None: ``default_split``.
        default_split: That.
        unread: Counts the keys beside the list.

    Raises:
        DataError: There are several lists and none is the split's, or columns differ in length.
    """
    lists = [key for key, value in values.items() if _are_objects(value)]
    is_row = any(key in _MESSAGES for key in lists)
    others = [key for key in lists if key not in _OF_A_ROW]
    if not is_row and others:
        key = _chosen(name, others, split, default_split)
        for other, value in values.items():
            if other != key and other not in others and value not in (None, "", [], {}):
                unread[f"key {other if other.isprintable() else repr(other)}"] += 1
        for number, value in enumerate(values[key], start=1):
            yield object_row(f"{name}:row {number}", value)
        return
    if split is not None:
        raise DataError(f"data source {name}: split {split!r}, and the file has no splits; drop it")
    columns = None if is_row else _columns(values)
    if columns is None:
        yield Row(f"{name}:1", dict(values))
        return
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise DataError(f"{name}:1: has columns of different lengths: {told}")
    for number, cells in enumerate(zip(*columns.values(), strict=True), start=1):
        yield Row(f"{name}:row {number}", dict(zip(columns, cells, strict=True)))


def _chosen(name: str, keys: list[str], split: str | None, default_split: str) -> str:
    if split is None and len(keys) == 1:
        return keys[0]
    wanted = split or default_split
    if wanted not in keys:
        raise DataError(
            f"data source {name}: the file has lists of rows under {', '.join(keys)}, and none is "
            f"{wanted!r}; say which with split"
        )
    return wanted


def _columns(values: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """The columns of an object that is a table; None: it is a row."""
    given = {key: value for key, value in values.items() if value is not None}
    if given and all(isinstance(value, list) for value in given.values()):
        return given
    # pandas.DataFrame.to_json: an object a column, whose keys number the rows
    if given and all(isinstance(value, dict) for value in given.values()):
        first, *rest = given.values()
        if all(key.isdecimal() for key in first) and all(
            one.keys() == first.keys() for one in rest
        ):
            return {key: list(value.values()) for key, value in given.items()}
    return None


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)
