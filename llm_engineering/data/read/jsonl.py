"""JSON lines: an object a line; a line that is none leaves the others."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from llm_engineering.data.read.lines import TOO_LONG, numbered_lines, unique_keys
from llm_engineering.data.read.row import BadRow, Row, object_row

_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


@dataclass(frozen=True, slots=True)
class JsonLine:
    """A line that is to be parsed yet, by whoever checks the row: most of reading is that."""

    name: str
    number: int
    raw: bytes

    def parse(self) -> Row | BadRow:
        """The row, or why there is none."""
        origin = f"{self.name}:{self.number}"
        try:
            value = _DECODER.decode(self.raw.decode("utf-8").rstrip())
        except UnicodeDecodeError as error:
            return BadRow(origin, f"is not UTF-8 (byte {error.start} of the line)")
        except json.JSONDecodeError as error:
            return BadRow(origin, f"is not JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            return BadRow(origin, "is nested too deeply")
        except ValueError as error:  # a number of more digits than Python converts
            return BadRow(origin, f"is not JSON that can be read: {error}")
        return object_row(origin, value)


def json_lines(name: str, stream: IO[bytes]) -> Iterator[JsonLine | BadRow]:
    """Yield the lines of a file in order, but for empty ones.

    Raises:
        DataError: It cannot be read, or decompressed, from a line on, which is named.
    """
    for number, raw in numbered_lines(name, stream):
        if raw is None:
            yield BadRow(f"{name}:{number}", TOO_LONG)
            continue
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if raw.strip():
            yield JsonLine(name, number, raw)
