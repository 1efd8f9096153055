"""ZenML's local store: whether this user and this ZenML can open it, found out before ZenML tries.

Needs nothing but the standard library: the set-up asks it before any package is there.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llm_engineering.errors import SetupError

_OTHER = "set ZENML_CONFIG_PATH to a folder of yours"


def store_folder() -> Path:
    """Where ZenML keeps its configuration and its local store: ``~/.config/zenml``, or as told."""
    folder = os.environ.get("ZENML_CONFIG_PATH")
    if folder:
        return Path(folder)
    settings = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return Path(settings) / "zenml"


def require_store() -> str | None:
    """Check that the store can be opened, whether it is there already or will be made.

    Returns:
        What will be done to it, in a sentence: an older ZenML's store is migrated. None if nothing.

    Raises:
        SetupError: It is not this user's to write, or a newer ZenML made it.
    """
    folder = store_folder()
    if not can_write(existing(folder)):
        raise SetupError(f"ZenML's store {folder} cannot be written by this user: {_OTHER}")
    found = _made_by(folder / "local_stores" / "default_zen_store" / "zenml.db")
    ours = _release(_installed())
    if found is None or ours is None or found == ours:
        return None
    versions = [".".join(map(str, version)) for version in (found, ours)]
    if found > ours:
        raise SetupError(
            f"ZenML's store {folder} was made by ZenML {versions[0]}, and this project has "
            f"{versions[1]}: {_OTHER}"
        )
    return (
        f"ZenML's store {folder} is migrated from ZenML {versions[0]} to {versions[1]}, after which "
        f"an older ZenML cannot open it; to keep it as it is, {_OTHER}"
    )


@contextmanager
def holding_store() -> Iterator[None]:
    """Show, as long as the context lasts, that a run of this host works with ZenML's store."""
    with _held().open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def store_is_held() -> bool:
    """Whether a run of this host works with ZenML's store now."""
    try:
        with _held().open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _held() -> Path:
    folder = store_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "finetuning.held"


def _installed() -> str:
    try:
        return importlib.metadata.version("zenml")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _made_by(database: Path) -> tuple[int, ...] | None:
    """The release whose tables a local database has; None where there is none, or none is named."""
    if not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError):
        return None  # ZenML knows better what to do with such a file
    return _release(revision)


def _release(version: str) -> tuple[int, ...] | None:
    """``0.98.0`` as numbers; between releases revisions have other names."""
    return tuple(map(int, version.split("."))) if re.fullmatch(r"\d+(\.\d+)+", version) else None


def can_write(folder: Path) -> bool:
    """Whether this user can write in a folder, by writing: permissions alone do not tell of a
    read-only file system."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return folder if folder.exists() else existing(folder.parent)
