"""Reading rows that an earlier ZenML pipeline made: ``zenml://name`` or ``zenml://name@version``."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.data.read.files import find_files
from llm_engineering.data.read.readers import parsed, unparsed_rows
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.errors import DataError

if TYPE_CHECKING:
    from zenml.models import ArtifactVersionResponse

SCHEME = "zenml://"
_READ = (
    "a datasets.Dataset, a pandas DataFrame, a list of objects, a pydantic model, a file, a folder"
)


def find_artifact(source: str) -> ArtifactVersionResponse:
    """The version that a source names; without ``@version`` the newest.

    Raises:
        DataError: ZenML has no such artifact or version.
    """
    from zenml.client import Client

    name, _, version = source.removeprefix(SCHEME).partition("@")
    if not name:
        raise DataError(f"data source {source}: names no artifact; give zenml://NAME@VERSION")
    try:
        return Client().get_artifact_version(name, version or None)
    except KeyError:
        raise DataError(
            f"data source {source}: ZenML has no such artifact; `zenml artifact version list` "
            "shows those it has"
        ) from None


def read_artifact(
    source: str, split: str | None, default_split: str, unread: Counter[str]
) -> Iterator[Row | BadRow]:
    """Yield an artifact's rows in order.

    Args:
        source: ``zenml://name`` or ``zenml://name@version``.
        split: Which is meant, where it holds several; None: ``default_split``.
        default_split: That.
        unread: Counts what the artifact holds beside rows.

    Raises:
        DataError: There is no such artifact, it cannot be loaded, it is of a type without rows, or
            it has no such split.
    """
    found = find_artifact(source)
    name = f"{SCHEME}{found.artifact.name}@{found.version}"
    try:
        value = found.load()
    except ImportError:
        value = _as_json(found)  # made by code that is not here: its JSON may do
    except Exception as error:  # the materializer raises whatever it likes
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise DataError(
            f"data source {source}: the artifact cannot be loaded ({type(error).__name__}: {reason})"
        ) from error
    if isinstance(value, Path):
        files = find_files(str(value), split=split, default_split=default_split, unread=unread)
        for file in files:
            for row in map(parsed, unparsed_rows(file, unread)):
                position = row.origin.removeprefix(str(value)).lstrip("/:")
                origin = f"{name}:{position}"
                yield (
                    Row(origin, row.values) if isinstance(row, Row) else BadRow(origin, row.reason)
                )
        return
    rows = _rows_in(value, split or default_split)
    if split is not None and split not in _splits(value):
        raise DataError(
            f"data source {source}: split {split!r}, and the artifact has "
            f"{', '.join(_splits(value)) or 'none'}; name one of them, or drop it"
        )
    if rows is None:
        raise DataError(
            f"data source {source}: the artifact is {type(value).__name__}, which has no rows; "
            f"read are {_READ}"
        )
    for number, values in enumerate(rows, start=1):
        origin = f"{name}:row {number}"
        if isinstance(values, dict):
            yield Row(origin, _plain(values))
        else:
            yield BadRow(origin, f"is {type(values).__name__}, expected an object")


def _rows_in(value: Any, split: str) -> Iterator[Any] | None:
    """The rows of what an artifact may hold; a model's are in its lists of objects."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a pandas DataFrame
        columns = list(map(str, value.columns))
        return (
            dict(zip(columns, row, strict=True)) for row in value.itertuples(index=False, name=None)
        )
    if hasattr(value, "column_names") and hasattr(value, "features"):  # a datasets.Dataset
        return (dict(row) for row in value)
    if isinstance(value, list | tuple):
        return iter(value)
    if isinstance(value, dict):
        if split in value:
            return _rows_in(value[split], split)
        # As the handbook's instruct data: categories, each with its samples.
        inner = [_rows_in(one, split) for one in value.values() if isinstance(one, dict | list)]
        if inner and None not in inner:
            return (row for rows in inner if rows is not None for row in rows)
    return None


def _splits(value: Any) -> list[str]:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return list(type(value).model_fields)
    return list(map(str, value)) if isinstance(value, dict) else []


def _plain(value: Any) -> Any:
    """A value as JSON would give it: a table's empty cell, which is not a number, is null."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # NumPy's
        return _plain(value.tolist())
    if isinstance(value, float) and math.isnan(value):
        return None
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _as_json(found: ArtifactVersionResponse) -> Any:
    from zenml.io import fileio

    path = f"{found.uri}/data.json"
    if not fileio.exists(path):
        return None
    with fileio.open(path, "r") as file:
        return json.load(file)
