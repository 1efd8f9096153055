"""Reading a source: what counts as a file, what cannot be had, one row at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_engineering.data.read.files import WHAT_TO_GIVE
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.sources import is_file, read_rows
from llm_engineering.errors import DataError

Write = Callable[[Path, str | bytes], Path]
Refusal = Callable[[Path], str]

FIRST = {"instruction": "What is 1 + 1?", "response": "Two.\nExactly."}


def test_a_missing_file(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"

    assert refusal(path) == f"data source none.jsonl: no such file; {WHAT_TO_GIVE}"


def test_a_folder_without_data(refusal: Refusal, tmp_path: Path) -> None:
    folder = tmp_path / "rows.jsonl"
    folder.mkdir()

    (folder / "README.md").write_text("no data")

    assert refusal(folder) == (
        "data source rows.jsonl: the folder holds no .jsonl, .json, .csv, .parquet file "
        "(.gz and .zst too)"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_an_empty_file(write: Write, refusal: Refusal, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows{suffix}", "")

    assert refusal(path) == f"data source rows{suffix}: the file is empty"


@pytest.mark.parametrize(
    ("name", "kind"), [("rows.txt", "'.txt'"), ("rows", "'(no suffix)'"), ("r.JSONL", "'.JSONL'")]
)
def test_a_file_of_an_unknown_kind(
    write: Write, refusal: Refusal, name: str, kind: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, "x")

    assert refusal(path) == (
        f"data source {name}: unknown kind {kind}; known: .jsonl, .json, .csv, .parquet, and "
        ".gz and .zst of the first three"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(write: Write, refusal: Refusal, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps(FIRST))
    path.chmod(0)

    assert refusal(path) == "data source rows.jsonl: cannot be read (Permission denied)"


def test_a_hub_data_set_that_cannot_be_had() -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows("nobody/nothing-here", split="validation"))

    message = str(caught.value)
    assert message.startswith(
        "data source nobody/nothing-here: cannot be loaded from the Hub (ConnectionError: "
    )
    assert message.endswith(
        "; check the id, the split 'validation', the network and, for a gated data set, "
        "your Hub login"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/name", False),
        ("owner/name-1.0_b", False),
        ("owner/rows.jsonl", True),
        ("data/stdlib_qa/train.jsonl", True),
        ("/absolute/name", True),
        ("name", True),
        ("a/b/c", True),
    ],
)
def test_what_counts_as_a_file(source: str, expected: bool) -> None:
    assert is_file(source) is expected


def test_a_folder_that_is_there_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert is_file("owner/name")


def test_rows_are_read_one_at_a_time(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps(FIRST) + "\n{\n")
    rows = read_rows(str(path))

    assert next(rows) == Row(f"{path}:1", FIRST)
    assert next(rows) == BadRow(
        f"{path}:2",
        "is not JSON: Expecting property name enclosed in double quotes at column 2",
    )
