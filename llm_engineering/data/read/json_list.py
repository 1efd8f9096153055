"""JSON: a list of objects, objects one after the other, or one object that holds the rows.

It is read through a window that moves on: little of a list is in memory.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import IO

from llm_engineering.data.read.json_object import rows_of_object
from llm_engineering.data.read.lines import LONGEST_ROW, guarded, not_utf8, unique_keys
from llm_engineering.data.read.row import BadRow, Row, object_row
from llm_engineering.errors import DataError

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER_GOES_ON = re.compile(r"[0-9.eE+-]+\Z")  # "1." of 1.5, where the window ends
_CHUNK = 2**18  # bytes
_LARGEST_OBJECT = 2**28  # characters; all of it is in memory
_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)


def read_json(
    name: str,
    stream: IO[bytes],
    *,
    split: str | None = None,
    default_split: str = "train",
    unread: Counter[str] | None = None,
) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order: of a list, of an object after the other, or of one object.

    Args:
        name: Of the file.
        stream: Its bytes.
        split: As of ``json_object.rows_of_object``, likewise ``default_split`` and ``unread``.
        default_split: That.
        unread: That.

    Raises:
        DataError: It is not JSON, or neither a list nor objects, from a line on, which is named.
    """
    text = _Text(name, stream)
    text.skip_blank()
    first = text.next()
    if first == "{":
        yield from _objects(
            name, text, split, default_split, Counter() if unread is None else unread
        )
        return
    if split is not None:
        raise DataError(f"data source {name}: split {split!r}, and the file has no splits; drop it")
    if first != "[":
        raise DataError(
            f"{name}:1: expected a JSON list of objects, objects one after the other, or an object "
            "that holds a list of them"
        )
    text.position += 1
    text.skip_blank()
    open_list = text.next() != "]"
    while open_list:
        origin = f"{name}:{text.line()}"
        value = text.value(origin)
        yield object_row(origin, value)
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


def _objects(
    name: str, text: _Text, split: str | None, default_split: str, unread: Counter[str]
) -> Iterator[Row | BadRow]:
    """The rows of a file that begins with an object: JSON lines, or the one object."""
    origin = f"{name}:{text.line()}"
    value = text.value(origin, _LARGEST_OBJECT)
    text.skip_blank()
    if not text.next() and isinstance(value, dict):
        yield from rows_of_object(name, value, split, default_split, unread)
        return
    if split is not None:
        raise DataError(f"data source {name}: split {split!r}, and the file has no splits; drop it")
    yield object_row(origin, value)
    while text.next():
        origin = f"{name}:{text.line()}"
        yield object_row(origin, text.value(origin))
        text.skip_blank()


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

    def value(self, origin: str, longest: int = LONGEST_ROW) -> object:
        """The JSON value of at most ``longest`` characters at ``position``, which moves behind it.

        Past a syntax error no later row's place is certain, so the file as a whole is wrong.
        """
        self._forget()
        size = _CHUNK
        while True:
            # What the window cuts off may end a number, a string, a list that it begins.
            try:
                value, end = _DECODER.raw_decode(self._window, self.position)
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
            if len(self._window) - self.position > longest:
                long = f"is longer than {longest // 2**20} MiB"
                raise DataError(f"{origin}: {long}, or is not JSON from here on")
            self._read(size)
            size *= 2

    def _forget(self) -> None:
        if self.position > _CHUNK:
            self.line()
            self._window = self._window[self.position :]
            self.position = self._counted = 0

    def _read(self, size: int) -> None:
        where = self._line + self._window.count("\n", self._counted)
        raw = guarded(self._name, where, self._stream.read, size)
        self._ended = not raw
        try:
            self._window += self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            line = where + error.object.count(b"\n", 0, error.start)
            raise not_utf8(self._name, line) from None
