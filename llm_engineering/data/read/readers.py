"""Reading the rows of one file as a stream: whatever its size, little of it is in memory."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from llm_engineering.data.read.files import DataFile
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.errors import DataError

LONGEST_ROW = 16 * 2**20
"""Bytes of a row, at most: some four million tokens. It bounds what a file that decompresses
without end, or has no line ends, can take of the memory."""

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER_GOES_ON = re.compile(r"[0-9.eE+-]+\Z")  # "1." of 1.5, where the window ends
_CHUNK = 2**18  # bytes
_PARQUET_ROWS = 256  # rows in memory at a time
_TOO_LONG = f"is longer than {LONGEST_ROW // 2**20} MiB"


def read_file(file: DataFile) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order, and a ``BadRow`` where one cannot be read.

    Raises:
        DataError: The file is unreadable as a whole, or from a line on, which is named.
    """
    read = {
        ".jsonl": _read_jsonl,
        ".json": _read_json,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }[file.kind]
    try:
        with file.open() as stream:
            yield from read(file.name, stream)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"data source {file.name}: cannot be read ({reason})") from None


def _read_jsonl(name: str, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    for number, raw in _lines(name, stream):
        origin = f"{name}:{number}"
        if raw is None:
            yield BadRow(origin, _TOO_LONG)
            continue
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
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


def _read_json(name: str, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    text = _Text(name, stream)
    text.skip_blank()
    if text.next() != "[":
        raise DataError(
            f"{name}:1: expected a JSON list of objects; for one object a line use .jsonl"
        )
    text.position += 1
    text.skip_blank()
    open_list = text.next() != "]"
    while open_list:
        origin = f"{name}:{text.line()}"
        value = text.value(origin)
        yield _object(origin, value)
        text.skip_blank()
        follows = text.next()
        if follows not in (",", "]"):
            raise DataError(f"{name}:{text.line()}: is not JSON: expected ',' or ']' after a row")
        open_list = follows == ","
        if open_list:
            text.position += 1
            text.skip_blank()
    text.position += 1
    text.skip_blank()
    if text.next():
        raise DataError(f"{name}:{text.line()}: is not JSON: more follows the end of the list")


class _Text:
    """A window on a JSON file's text, which moves on with ``position``."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self.position = 0
        self._name = name
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._window = ""
        self._ended = False
        self._line = 1  # of the window's first character
        self._counted = 0

    def line(self) -> int:
        """The line, from 1, that ``position`` is on."""
        self._line += self._window.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def next(self) -> str:
        """The character at ``position``; empty at the end of the file."""
        while self.position >= len(self._window) and not self._ended:
            self._forget()
            self._read(_CHUNK)
        return self._window[self.position : self.position + 1]

    def skip_blank(self) -> None:
        """Move on to the next character that JSON does not skip."""
        while self.next():
            match = _BLANK.match(self._window, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self._window):
                return

    def value(self, origin: str) -> object:
        """The JSON value at ``position``, which moves behind it.

        Past a syntax error no later row's place is certain, so the file as a whole is wrong.
        """
        self._forget()
        size = _CHUNK
        while True:
            # What the window cuts off may end a number, a string, a list that it begins.
            try:
                value, end = json.JSONDecoder().raw_decode(self._window, self.position)
            except json.JSONDecodeError as error:
                if self._ended:
                    line = self.line() + self._window.count("\n", self.position, error.pos)
                    raise DataError(f"{self._name}:{line}: is not JSON: {error.msg}") from None
            except RecursionError:
                raise DataError(f"{origin}: is not JSON: nested too deeply") from None
            except ValueError as error:  # a number of more digits than Python converts
                raise DataError(f"{origin}: is not JSON that can be read: {error}") from None
            else:
                cut_number = _NUMBER_GOES_ON.match(self._window, end)
                if self._ended or (end < len(self._window) and not cut_number):
                    self.position = end
                    return value
            if len(self._window) - self.position > LONGEST_ROW:
                raise DataError(f"{origin}: {_TOO_LONG}, or is not JSON from here on")
            self._read(size)
            size *= 2

    def _forget(self) -> None:
        if self.position > _CHUNK:
            self.line()
            self._window = self._window[self.position :]
            self.position = self._counted = 0

    def _read(self, size: int) -> None:
        where = self._line + self._window.count("\n", self._counted)
        raw = _guarded(self._name, where, self._stream.read, size)
        self._ended = not raw
        try:
            self._window += self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            line = where + error.object.count(b"\n", 0, error.start)
            raise _not_utf8(self._name, line) from None


def _read_csv(name: str, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    csv.field_size_limit(LONGEST_ROW)
    reader = csv.reader(_csv_lines(name, stream), strict=True)
    try:
        columns = next(filter(None, reader), [])
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise DataError(f"{name}:{reader.line_num}: names column {', '.join(twice)} twice")
        start = reader.line_num + 1
        for cells in reader:
            origin = f"{name}:{start}"
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
    except csv.Error as error:
        raise DataError(f"{name}:{reader.line_num}: is not CSV: {error}") from None


def _csv_lines(name: str, stream: IO[bytes]) -> Iterator[str]:
    for number, raw in _lines(name, stream):
        if raw is None:
            raise DataError(f"{name}:{number}: {_TOO_LONG}")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise _not_utf8(name, number) from None
        yield from io.StringIO(line, newline="") if "\r" in line else (line,)


def _read_parquet(name: str, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(stream)
        for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{name}:row {number}", values)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        where = f"{name}:row {number + 1}" if number else name
        raise DataError(f"{where}: is not a readable Parquet file: {error}") from None


def _lines(name: str, stream: IO[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Number the lines of a file from 1; one that is too long is None."""
    number = 0
    while True:
        number += 1
        raw = _guarded(name, number, stream.readline, LONGEST_ROW + 1)
        if not raw:
            return
        if len(raw) <= LONGEST_ROW or raw.endswith(b"\n"):
            yield number, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = _guarded(name, number, stream.readline, _CHUNK)
        yield number, None


def _guarded(name: str, line: int, read: Callable[[int], bytes], size: int) -> bytes:
    """Read, and name the line from which a file cannot be read or decompressed."""
    try:
        return bytes(read(size))
    except (OSError, EOFError, ValueError, zlib.error) as error:  # Arrow's errors are ValueErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}:{line}: cannot be read from here on ({reason})") from None


def _object(origin: str, value: object) -> Row | BadRow:
    if not isinstance(value, dict):
        kind = "null" if value is None else type(value).__name__
        return BadRow(origin, f"is {kind}, expected an object with named columns")
    return Row(origin, value)


def _not_utf8(name: str, line: int) -> DataError:
    return DataError(f"{name}:{line}: is not UTF-8; save it as UTF-8")
