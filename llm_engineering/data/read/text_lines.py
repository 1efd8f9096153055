"""Plain text: each line is a row of ``text``, as ``datasets`` reads it; blank lines are counted."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterator
from typing import IO

from llm_engineering.data.read.lines import TOO_LONG, numbered_lines
from llm_engineering.data.read.row import BadRow, Row

BLANK = "blank line"


def read_text_lines(name: str, stream: IO[bytes], unread: Counter[str]) -> Iterator[Row | BadRow]:
    """Yield the lines of a file in order, without their ends; ``unread`` counts the blank ones.

    Raises:
        DataError: It cannot be read, or decompressed, from a line on, which is named.
    """
    for number, raw in numbered_lines(name, stream):
        origin = f"{name}:{number}"
        if raw is None:
            yield BadRow(origin, TOO_LONG)
            continue
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if not raw.strip():
            unread[BLANK] += 1
            continue
        try:
            yield Row(origin, {"text": raw.decode("utf-8").rstrip("\r\n")})
        except UnicodeDecodeError as error:
            yield BadRow(origin, f"is not UTF-8 (byte {error.start} of the line)")
