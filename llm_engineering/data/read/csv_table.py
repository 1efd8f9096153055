"""CSV: a header that names the columns, and a row of texts a record."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import IO

from llm_engineering.data.read.lines import LONGEST_ROW, TOO_LONG, not_utf8, numbered_lines
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.errors import DataError


def read_csv(name: str, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order.

    Raises:
        DataError: It is not CSV from a line on, which is named, or names a column twice.
    """
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
    for number, raw in numbered_lines(name, stream):
        if raw is None:
            raise DataError(f"{name}:{number}: {TOO_LONG}")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise not_utf8(name, number) from None
        yield from io.StringIO(line, newline="") if "\r" in line else (line,)
