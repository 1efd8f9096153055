"""JSON lines: an object a line; a line that is none leaves the others."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO

from llm_engineering.data.read.lines import TOO_LONG, numbered_lines, unique_keys
from llm_engineering.data.read.row import BadRow, Row, object_row

_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


def read_jsonl(name: str, stream: IO[bytes]) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order.

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
            continue
        try:
            value = _DECODER.decode(raw.decode("utf-8").rstrip())
        except UnicodeDecodeError as error:
            yield BadRow(origin, f"is not UTF-8 (byte {error.start} of the line)")
        except json.JSONDecodeError as error:
            yield BadRow(origin, f"is not JSON: {error.msg} at column {error.colno}")
        except RecursionError:
            yield BadRow(origin, "is nested too deeply")
        except ValueError as error:  # a number of more digits than Python converts
            yield BadRow(origin, f"is not JSON that can be read: {error}")
        else:
            yield object_row(origin, value)
