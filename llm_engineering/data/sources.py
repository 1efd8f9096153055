"""Reading rows from a file or a Hub data set, each with the place it came from."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_engineering.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_BLANK = re.compile(r"[ \t\r\n]*")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True)
class Row:
    """One row as read; ``origin`` is ``file:line`` (``file:row N`` where there are no lines)."""

    origin: str
    values: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be trained on, and why."""

    origin: str
    reason: str


def is_file(source: str) -> bool:
    """Whether a source names a local file (else it names a data set on the Hub)."""
    path = Path(source)
    return path.exists() or path.suffix in SUFFIXES or not _HUB_ID.match(source)


def read_rows(
    source: str, *, split: str = "train", revision: str | None = None
) -> Iterator[Row | BadRow]:
    """Yield the rows of a source in order, and a ``BadRow`` where one cannot be read.

    Raises:
        DataError: The source is missing, of an unknown kind, or unreadable as a whole.
    """
    if not is_file(source):
        yield from _read_hub(source, split, revision)
        return
    path = Path(source)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise DataError(
            f"data source {source}: {what}; give a {', '.join(SUFFIXES)} file or a Hub id owner/name"
        )
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"data source {source}: unknown kind {path.suffix or '(no suffix)'!r}; "
            f"known: {', '.join(SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise DataError(f"data source {source}: the file is empty")
    read = {
        ".jsonl": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    try:
        yield from read[path.suffix](path)
    except OSError as error:
        raise DataError(f"data source {source}: cannot be read ({error.strerror})") from None


def _read_jsonl(path: Path) -> Iterator[Row | BadRow]:
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            origin = f"{path}:{number}"
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            if not raw.strip():
                continue
            try:
                value = json.loads(raw.decode("utf-8").rstrip())
            except UnicodeDecodeError as error:
                yield BadRow(origin, f"is not UTF-8 (byte {error.start} of the line)")
            except json.JSONDecodeError as error:
                yield BadRow(origin, f"is not JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield BadRow(origin, "is nested too deeply")
            except ValueError as error:  # a number of more digits than Python converts
                yield BadRow(origin, f"is not JSON that can be read: {error}")
            else:
                yield _object(origin, value)


def _read_json(path: Path) -> Iterator[Row | BadRow]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    position = _after_blank(text, 0)
    if text[position : position + 1] != "[":
        raise DataError(
            f"{path}:1: expected a JSON list of objects; for one object a line use .jsonl"
        )
    decoder = json.JSONDecoder()
    position = _after_blank(text, position + 1)
    line, counted = 1, 0
    open_list = text[position : position + 1] != "]"
    while open_list:
        line += text.count("\n", counted, position)
        counted = position
        origin = f"{path}:{line}"
        # Past a syntax error no later row's place is certain, so the file as a whole is wrong.
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: is not JSON: {error.msg}") from None
        except RecursionError:
            raise DataError(f"{origin}: is not JSON: nested too deeply") from None
        except ValueError as error:  # a number of more digits than Python converts
            raise DataError(f"{origin}: is not JSON that can be read: {error}") from None
        yield _object(origin, value)
        position = _after_blank(text, position)
        follows = text[position : position + 1]
        if follows not in (",", "]"):
            line += text.count("\n", counted, position)
            raise DataError(f"{path}:{line}: is not JSON: expected ',' or ']' after a row")
        open_list = follows == ","
        if open_list:
            position = _after_blank(text, position + 1)
    rest = _after_blank(text, position + 1)
    if rest < len(text):
        line = 1 + text.count("\n", 0, rest)
        raise DataError(f"{path}:{line}: is not JSON: more follows the end of the list")


def _read_csv(path: Path) -> Iterator[Row | BadRow]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            columns = next(filter(None, reader), [])
            twice = sorted({name for name in columns if columns.count(name) > 1})
            if twice:
                raise DataError(f"{path}:{reader.line_num}: names column {', '.join(twice)} twice")
            start = reader.line_num + 1
            for cells in reader:
                origin = f"{path}:{start}"
                start = reader.line_num + 1
                if not cells:
                    continue
                if len(cells) > len(columns):
                    yield BadRow(origin, f"has more than the header's {len(columns)} columns")
                elif len(cells) < len(columns):
                    missing = columns[len(cells) :]
                    yield BadRow(origin, f"has no value for column {', '.join(missing)}")
                else:
                    yield Row(origin, dict(zip(columns, cells, strict=True)))
        except UnicodeDecodeError:
            raise _not_utf8(path) from None
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: is not CSV: {error}") from None


def _read_parquet(path: Path) -> Iterator[Row | BadRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in table.iter_batches():
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path}:row {number}", values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a readable Parquet file: {error}") from None


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


def _after_blank(text: str, position: int) -> int:
    """The position of the first character from ``position`` on that JSON does not skip."""
    match = _BLANK.match(text, position)
    return match.end() if match else position


def _object(origin: str, value: Any) -> Row | BadRow:
    if not isinstance(value, dict):
        kind = "null" if value is None else type(value).__name__
        return BadRow(origin, f"is {kind}, expected an object with named columns")
    return Row(origin, value)


def _not_utf8(path: Path) -> DataError:
    """The refusal of a text file, naming its first line that is not UTF-8."""
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError:
                return DataError(f"{path}:{number}: is not UTF-8; save it as UTF-8")
    return DataError(f"{path}: is not UTF-8; save it as UTF-8")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
