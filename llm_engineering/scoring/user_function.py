"""A scorer of the user's own: a Python function, found by ``module:function``."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_engineering.errors import ConfigError, ScoringError

TAKES = ("answer", "reference", "prompt")
"""Names of the arguments, all texts, that the function is called with."""


def load_function(named: str, key: str) -> Callable[..., Any]:
    """Import the function; the current folder counts as a place of modules.

    Args:
        named: ``module:function``.
        key: The configuration's key, for the message.

    Raises:
        ConfigError: It cannot be imported, or does not take what it is called with.
    """
    module, _, name = named.partition(":")
    try:
        with _current_folder_first():
            found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the user's module does when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{key}: {named} cannot be imported from {Path.cwd()} ({reason}); name a module there, or "
            "one that is installed, and a function in it"
        ) from None
    try:
        inspect.signature(found).bind(**dict.fromkeys(TAKES, ""))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{key}: {named} cannot be called with {', '.join(TAKES)} ({error}); define it as "
            f"def {name}(*, {', '.join(TAKES)}), or with **others for those that it ignores"
        ) from None
    function: Callable[..., Any] = found
    return function


def source_digest(function: Callable[..., Any]) -> str:
    """SHA-256 of the file that the function is in: another file may score otherwise."""
    path = inspect.getsourcefile(inspect.unwrap(function))
    return "" if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()


def call(
    function: Callable[..., Any],
    named: str,
    origin: str,
    *,
    answer: str,
    reference: str,
    prompt: str,
) -> float:
    """The function's number for one answer.

    Raises:
        ScoringError: It raised, or gave no finite number; names the row.
    """
    try:
        value = function(answer=answer, reference=reference, prompt=prompt)
    except Exception as error:
        where = _last_line(error)
        raise ScoringError(
            f"{named} raised {type(error).__name__}: {error}{where}, on the answer {answer[:80]!r} to "
            f"{origin}; mend it and run again: what was trained comes from the cache"
        ) from error
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ScoringError(
            f"{named} gave {value!r} for the answer {answer[:80]!r} to {origin}, expected a finite "
            "number; mend it and run again: what was trained comes from the cache"
        )
    return number


def _last_line(error: BaseException) -> str:
    """Where in the user's code an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})"


@contextmanager
def _current_folder_first() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
