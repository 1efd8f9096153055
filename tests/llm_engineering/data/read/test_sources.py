"""Reading a source: what counts as a file, what cannot be had, one row at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llm_engineering.data.read.files import WHAT_TO_GIVE
from llm_engineering.data.read.row import BadRow, Row
from llm_engineering.data.read.sources import Asked, is_file, read_rows
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
        "data source rows.jsonl: the folder holds no .jsonl, .ndjson, .json, .csv, .txt, .parquet, "
        ".arrow file (.gz and .zst too)"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_an_empty_file(write: Write, refusal: Refusal, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"rows{suffix}", "")

    assert refusal(path) == f"data source rows{suffix}: the file is empty"


@pytest.mark.parametrize(
    ("name", "kind"), [("rows.xlsx", "'.xlsx'"), ("rows", "'(no suffix)'"), ("r.JSONL", "'.JSONL'")]
)
def test_a_file_of_an_unknown_kind(
    write: Write, refusal: Refusal, name: str, kind: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, "x")

    assert refusal(path) == (
        f"data source {name}: unknown kind {kind}; known: .jsonl, .ndjson, .json, .csv, .txt, "
        ".parquet, .arrow, and .gz and .zst of those of text"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(write: Write, refusal: Refusal, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps(FIRST))
    path.chmod(0)

    assert refusal(path) == "data source rows.jsonl: cannot be read (Permission denied)"


@pytest.mark.parametrize("source", ["nobody/nothing-here", "data/mydata"])
def test_what_is_neither_here_nor_on_the_hub(source: str) -> None:
    with pytest.raises(DataError) as caught:
        list(read_rows(source, Asked(split="validation", subset="de")))

    message = str(caught.value)
    assert message.startswith(
        f"data source {source}: there is no such file or folder here, and as a data set on the Hub "
        "it cannot be loaded ("
    )
    assert message.endswith(
        "; check the path, or the id, the split 'validation', the subset 'de', the network and, for "
        "a gated data set, your Hub login"
    )


class Hub:
    """The Hub, with one data set in it; ``asked`` is what was asked of it."""

    rows: ClassVar[list[dict[str, Any]]] = [
        {"messages": [{"role": "user", "content": "a", "name": None}], "tools": None},
        {"messages": [{"role": "user", "content": "b", "name": "c"}], "tools": None},
        {"messages": [], "tools": None},
    ]

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.fetched = 0

    def load_dataset(self, source: str, **asked: Any) -> Iterator[dict[str, Any]]:
        self.asked = {"source": source, **asked}
        for row in self.rows:
            self.fetched += 1
            yield row


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    import datasets

    hub = Hub()
    monkeypatch.setattr(datasets, "load_dataset", hub.load_dataset)
    return hub


def test_a_hub_data_set_is_asked_for_what_is_configured(hub: Hub) -> None:
    rows = list(read_rows("owner/name", Asked(subset="de", revision="v1")))

    assert hub.asked == {
        "source": "owner/name",
        "name": "de",
        "split": "train",
        "revision": "v1",
        "streaming": False,
    }
    # An object's null is the table's: other rows have that key.
    assert rows[0] == Row(
        "owner/name[train]:row 1",
        {"messages": [{"role": "user", "content": "a"}], "tools": None},
    )
    assert len(rows) == 3


def test_of_a_hub_data_set_no_more_rows_are_fetched_than_are_used(hub: Hub) -> None:
    rows = list(read_rows("owner/name", Asked(default_split="test", max_rows=2)))

    assert [row.origin for row in rows] == ["owner/name[test]:row 1", "owner/name[test]:row 2"]
    assert hub.asked["streaming"] is True
    assert hub.fetched == 2


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("split", "split 'x', and a .jsonl file has no splits; drop it"),
        ("subset", "subset 'x', and a file has none; drop it"),
        ("revision", "revision 'x', and a file has none; drop it"),
    ],
)
def test_what_a_file_cannot_have_is_refused(
    write: Write, key: str, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps(FIRST))

    with pytest.raises(DataError) as caught:
        list(read_rows(str(path), Asked(**{key: "x"})))  # type: ignore[arg-type]

    assert str(caught.value) == f"data source {path}: {reason}"


def test_a_key_that_is_there_twice_is_a_bad_row(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"text": "a", "text": "b"}\n{"text": "c"}\n')

    assert list(read_rows(str(path))) == [
        BadRow(f"{path}:1", "is not JSON that can be read: an object names 'text' twice"),
        Row(f"{path}:2", {"text": "c"}),
    ]


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
