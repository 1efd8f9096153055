"""The text of a row: what is text, what is empty, and what holds nothing at all."""

from __future__ import annotations

import math

from llm_engineering.data.rows.unusable import UnusableRowError


def read_text(value: object, what: str, *, may_be_empty: bool = False) -> str:
    """A value as text, to the character.

    Args:
        value: Of a column or of a message's key.
        what: Names it in an error.
        may_be_empty: Whether it may hold nothing, or blanks alone.

    Raises:
        UnusableRowError: It is no text, is empty, or holds what no tokenizer reads.
    """
    if not isinstance(value, str):
        raise UnusableRowError(f"{what} is {kind(value)}, expected text")
    if not may_be_empty and not value.strip():
        raise UnusableRowError(f"{what} is empty")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise UnusableRowError(f"{what} holds a lone surrogate, which is no text") from None
    if "\x00" in value:
        raise UnusableRowError(f"{what} holds a NUL character")
    return value


def is_clean(text: str) -> bool:
    """Whether ``read_text`` takes it, told in no time; some that it takes are not."""
    return text.isascii() and "\x00" not in text and not text.isspace() and text != ""


def holds_nothing(value: object) -> bool:
    """Whether a value says nothing: null, a number that is none, an empty text, list or object.

    Tables fill with such values the keys that a row does not have.
    """
    if isinstance(value, str | list | dict | tuple):
        return not value
    return value is None or (isinstance(value, float) and math.isnan(value))


def kind(value: object) -> str:
    """What a value is, for an error."""
    return "null" if value is None else type(value).__name__
