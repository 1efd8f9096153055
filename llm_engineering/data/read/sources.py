"""Reading the rows of a source: files, a ZenML artifact, or a data set on the Hub."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from llm_engineering.data.read.artifacts import SCHEME, read_artifact
from llm_engineering.data.read.files import KINDS, find_files
from llm_engineering.data.read.readers import read_file
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.table import without_nulls_inside
from llm_engineering.errors import DataError

_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def is_artifact(source: str) -> bool:
    """Whether a source names an artifact in ZenML."""
    return source.startswith(SCHEME)


def is_file(source: str) -> bool:
    """Whether a source names files, here or behind a URL (else a data set on the Hub)."""
    path = Path(source)
    return path.exists() or path.suffix in KINDS or not _HUB_ID.match(source)


def read_rows(
    source: str,
    *,
    split: str | None = None,
    default_split: str = "train",
    subset: str | None = None,
    revision: str | None = None,
    max_rows: int | None = None,
    unread: Counter[str] | None = None,
) -> Iterator[Row | BadRow]:
    """Yield the rows of a source in order, and a ``BadRow`` where one cannot be read.

    Args:
        source: As ``data.sources[].source``.
        split: The split that is meant; None: ``default_split``, where the source has splits.
        default_split: That.
        subset: Of a Hub data set.
        revision: Of a Hub data set.
        max_rows: Rows to read at most; of a Hub data set no others are fetched.
        unread: Counts what the source holds beside rows: files of a folder, blank lines.

    Raises:
        DataError: The source is missing, of an unknown kind, or unreadable as a whole, or is asked
            for a split, subset or revision that it cannot have.
    """
    unread = Counter() if unread is None else unread
    if is_artifact(source):
        _refuse_hub_keys(source, "an artifact has none; its version follows @", subset, revision)
        rows = read_artifact(source, split, default_split, unread)
    elif is_file(source):
        _refuse_hub_keys(source, "a file has none", subset, revision)
        rows = _read_files(source, split, default_split, unread)
    else:
        rows = _read_hub(source, split or default_split, subset, revision, max_rows)
    yield from islice(rows, max_rows)


def _refuse_hub_keys(source: str, why: str, subset: str | None, revision: str | None) -> None:
    for name, value in (("subset", subset), ("revision", revision)):
        if value is not None:
            raise DataError(f"data source {source}: {name} {value!r}, and {why}; drop it")


def _read_files(
    source: str, split: str | None, default_split: str, unread: Counter[str]
) -> Iterator[Row | BadRow]:
    for file in find_files(source, split=split, default_split=default_split, unread=unread):
        yield from read_file(file, unread)


def _read_hub(
    source: str, split: str, subset: str | None, revision: str | None, max_rows: int | None
) -> Iterator[Row | BadRow]:
    import datasets

    try:
        rows = datasets.load_dataset(
            source,
            name=subset,
            split=split,
            revision=revision,
            streaming=max_rows is not None,  # the rest is not fetched
        )
        for number, values in enumerate(rows, start=1):
            yield Row(f"{source}[{split}]:row {number}", without_nulls_inside(dict(values)))
    except Exception as error:  # the library raises whatever its transport raised
        raise DataError(
            f"data source {source}: there is no such file or folder here, and as a data set on the "
            f"Hub it cannot be loaded ({type(error).__name__}: {_first_line(error)}); check the "
            f"path, or the id, the split {split!r}, {_of_subset(subset)}the network and, for a gated "
            "data set, your Hub login"
        ) from error


def _of_subset(subset: str | None) -> str:
    return "" if subset is None else f"the subset {subset!r}, "


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
