"""Reading the rows of a source: files, a ZenML artifact, or a data set on the Hub."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from llm_engineering.configuration.data import DataSettings
from llm_engineering.data.read.artifacts import SCHEME, read_artifact
from llm_engineering.data.read.files import KINDS, find_files
from llm_engineering.data.read.readers import UnparsedRow, parsed, unparsed_rows
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


class Asked(NamedTuple):
    """What of a source is asked for; None: whatever there is."""

    split: str | None = None
    """The split that is meant; None: ``default_split``, where the source has splits."""
    default_split: str = "train"
    subset: str | None = None
    """Of a Hub data set."""
    revision: str | None = None
    """Of a Hub data set."""
    max_rows: int | None = None
    """Rows to read at most; of a Hub data set no others are fetched."""


_ALL = Asked()


def read_rows(
    source: str, asked: Asked = _ALL, unread: Counter[str] | None = None
) -> Iterator[Row | BadRow]:
    """As ``read_unparsed``, with every row parsed."""
    return map(parsed, read_unparsed(source, asked, Counter() if unread is None else unread))


def sources_of(data: DataSettings) -> Iterator[tuple[str, str, Asked]]:
    """The configured sources: the key that names each, the source, and what of it is asked for."""
    for number, one in enumerate(data.sources):
        asked = Asked(one.split, "train", one.subset, one.revision, max_rows=one.max_rows)
        yield f"data.sources.{number}", one.source, asked
    held_out = data.held_out
    if held_out.source:
        asked = Asked(held_out.split, "test", held_out.subset, held_out.revision)
        yield "data.held_out", held_out.source, asked


def read_unparsed(source: str, asked: Asked, unread: Counter[str]) -> Iterator[UnparsedRow]:
    """Yield the rows of a source in order, and a ``BadRow`` where one cannot be read.

    Args:
        source: As ``data.sources[].source``.
        asked: What of it.
        unread: Counts what the source holds beside rows: files of a folder, blank lines.

    Raises:
        DataError: The source is missing, of an unknown kind, or unreadable as a whole, or is asked
            for a split, subset or revision that it cannot have.
    """
    rows: Iterator[UnparsedRow]
    if is_artifact(source):
        _refuse_hub_keys(source, "an artifact has none; its version follows @", asked)
        rows = read_artifact(source, asked.split, asked.default_split, unread)
    elif is_file(source):
        _refuse_hub_keys(source, "a file has none", asked)
        rows = _read_files(source, asked, unread)
    else:
        rows = _read_hub(source, asked)
    yield from islice(rows, asked.max_rows)


def _refuse_hub_keys(source: str, why: str, asked: Asked) -> None:
    for name, value in (("subset", asked.subset), ("revision", asked.revision)):
        if value is not None:
            raise DataError(f"data source {source}: {name} {value!r}, and {why}; drop it")


def _read_files(source: str, asked: Asked, unread: Counter[str]) -> Iterator[UnparsedRow]:
    files = find_files(source, split=asked.split, default_split=asked.default_split, unread=unread)
    for file in files:
        yield from unparsed_rows(file, unread)


def _read_hub(source: str, asked: Asked) -> Iterator[Row]:
    import datasets

    split = asked.split or asked.default_split
    try:
        rows = datasets.load_dataset(
            source,
            name=asked.subset,
            split=split,
            revision=asked.revision,
            streaming=asked.max_rows is not None,  # the rest is not fetched
        )
        for number, values in enumerate(rows, start=1):
            yield Row(f"{source}[{split}]:row {number}", without_nulls_inside(dict(values)))
    except Exception as error:  # the library raises whatever its transport raised
        raise DataError(
            f"data source {source}: there is no such file or folder here, and as a data set on the "
            f"Hub it cannot be loaded ({type(error).__name__}: {_first_line(error)}); check the "
            f"path, or the id, the split {split!r}, {_of_subset(asked.subset)}the network and, for a gated "
            "data set, your Hub login"
        ) from error


def _of_subset(subset: str | None) -> str:
    return "" if subset is None else f"the subset {subset!r}, "


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
