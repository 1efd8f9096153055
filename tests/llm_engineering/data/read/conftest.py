"""Writing a file and reading its rows, for the tests of every kind of file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.read.row import Row
from llm_engineering.data.read.sources import read_rows
from llm_engineering.errors import DataError


@pytest.fixture
def write() -> Callable[[Path, str | bytes], Path]:
    """Write a file; returns its path."""

    def write_file(path: Path, content: str | bytes) -> Path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


@pytest.fixture
def write_parquet() -> Callable[[Path, list[dict[str, Any]]], Path]:
    """Write rows as Parquet; returns the file's path."""

    def write_file(path: Path, rows: list[dict[str, Any]]) -> Path:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path

    return write_file


@pytest.fixture
def read() -> Callable[[Path], list[tuple[str, Any]]]:
    """What a file gives: the position in the file, and the values or the reason."""

    def read_file(path: Path) -> list[tuple[str, Any]]:
        return [
            (
                row.origin.removeprefix(str(path)),
                row.values if isinstance(row, Row) else f"bad: {row.reason}",
            )
            for row in read_rows(str(path))
        ]

    return read_file


@pytest.fixture
def refusal() -> Callable[[Path], str]:
    """Why a file is refused as a whole, with its name alone."""

    def refuse(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            list(read_rows(str(path)))
        return str(caught.value).replace(f"{path.parent}/", "")

    return refuse
