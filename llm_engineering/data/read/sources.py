"""Reading the rows of a source: files, a ZenML artifact, or a data set on the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from llm_engineering.data.read.artifacts import SCHEME, read_artifact
from llm_engineering.data.read.files import KINDS, find_files
from llm_engineering.data.read.readers import UnparsedRow, parsed, unparsed_rows
from llm_engineering.data.read.row import BadRow, Row
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
    source: str, *, split: str = "train", revision: str | None = None
) -> Iterator[Row | BadRow]:
    """As ``read_unparsed``, with every row parsed."""
    return map(parsed, read_unparsed(source, split=split, revision=revision))


def read_unparsed(
    source: str, *, split: str = "train", revision: str | None = None
) -> Iterator[UnparsedRow]:
    """Yield the rows of a source in order, and a ``BadRow`` where one cannot be read.

    Raises:
        DataError: The source is missing, of an unknown kind, or unreadable as a whole.
    """
    if is_artifact(source):
        yield from read_artifact(source, split)
    elif is_file(source):
        for file in find_files(source):
            yield from unparsed_rows(file)
    else:
        yield from _read_hub(source, split, revision)


def _read_hub(source: str, split: str, revision: str | None) -> Iterator[Row | BadRow]:
    import datasets

    try:
        rows = datasets.load_dataset(source, split=split, revision=revision)
    except Exception as error:  # the library raises whatever its transport raised
        raise DataError(
            f"data source {source}: cannot be loaded from the Hub "
            f"({type(error).__name__}: {_first_line(error)}); check the id, the split {split!r}, "
            "the network and, for a gated data set, your Hub login"
        ) from error
    for number, values in enumerate(rows, start=1):
        yield Row(f"{source}[{split}]:row {number}", dict(values))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
