"""Folders: what describes the data is no row, and of several splits one is read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.read.row import Row
from llm_engineering.data.read.sources import Asked, read_rows
from llm_engineering.errors import DataError


def fill(folder: Path, *names: str) -> Path:
    """A folder of files with a row each, which says the file's name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = name if path.suffix in (".txt", ".md") else json.dumps({"text": name})
        path.write_text(text)
    return folder


def texts(folder: Path, unread: Counter[str] | None = None, **asked: Any) -> list[str]:
    rows = read_rows(str(folder), Asked(**asked), unread)
    return [str(row.values["text"]) for row in rows if isinstance(row, Row)]


def refusal(folder: Path, **asked: Any) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(str(folder), Asked(**asked)))
    return str(caught.value).replace(str(folder), "FOLDER")


def test_what_describes_the_data_is_left_out_by_name(tmp_path: Path) -> None:
    unread: Counter[str] = Counter()
    left_out = [
        *("README.md", "dataset_infos.json", "dataset_info.json", "LICENSE.txt", "notes.txt"),
        *("images/cat.png", "requirements.txt"),
    ]
    fill(tmp_path, "a.jsonl", *left_out)

    assert texts(tmp_path, unread=unread) == ["a.jsonl"]
    assert unread == {f"file {name}": 1 for name in left_out}


def test_text_is_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    assert texts(fill(tmp_path, "a.txt", "README.txt")) == ["a.txt"]


HUB = ("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl")
VALID = "data/validation-00000-of-00001.jsonl"


@pytest.mark.parametrize(
    ("split", "files"),
    [(None, HUB), ("train", HUB), ("validation", (VALID,)), ("valid", (VALID,))],
)
def test_a_folder_as_the_hub_has_it_gives_one_split(
    split: str | None, files: tuple[str, ...], tmp_path: Path
) -> None:
    fill(tmp_path, *HUB, VALID)
    unread: Counter[str] = Counter()

    assert texts(tmp_path, split=split, unread=unread) == [*files]
    assert set(unread) == {f"file {name}" for name in {*HUB, VALID} - {*files}}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.jsonl", "test.jsonl"),
        ("my_train_1.jsonl", "my-eval.jsonl"),
        ("train/0.jsonl", "testing/0.jsonl"),
        ("en/training.jsonl", "en/TEST.jsonl"),
    ],
)
def test_names_of_files_and_folders_say_the_split(train: str, test: str, tmp_path: Path) -> None:
    fill(tmp_path, train, test)

    assert texts(tmp_path) == [train]
    assert texts(tmp_path, default_split="test") == [test]


def test_names_that_only_hold_such_letters_say_none(tmp_path: Path) -> None:
    fill(tmp_path, "contest.jsonl", "trainer.jsonl")

    assert texts(tmp_path) == ["contest.jsonl", "trainer.jsonl"]


def test_a_split_that_is_not_there_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "named", "train.jsonl", "dev.jsonl")
    fill(tmp_path / "plain", "a.jsonl")

    assert refusal(tmp_path / "named", split="test") == (
        "data source FOLDER: no file in it is of split 'test'; they name validation, train: say "
        "which with split, or name the files, e.g. FOLDER/*"
    )
    assert refusal(tmp_path / "plain", split="test") == (
        "data source FOLDER: split 'test', and no file or folder in it names a split; drop it"
    )
    assert "a glob says itself which files" in refusal(tmp_path / "plain" / "*.jsonl", split="test")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``save_to_disk`` writes of a data set, and of one with two splits."""
    import datasets

    folder = tmp_path_factory.mktemp("saved")
    one = datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}])
    one.save_to_disk(folder / "one", num_shards=2)
    (folder / "one" / "cache-1f.arrow").write_bytes(b"left by a map over it")
    both = datasets.DatasetDict({"train": one, "test": datasets.Dataset.from_list([{"text": "c"}])})
    both.save_to_disk(folder / "both")
    return folder


def test_a_data_set_that_was_saved_gives_its_rows(saved: Path) -> None:
    unread: Counter[str] = Counter()

    assert texts(saved / "one", unread=unread) == ["a", "b"]
    assert set(unread) == {"file cache-1f.arrow", "file dataset_info.json", "file state.json"}


def test_of_saved_splits_one_is_read(saved: Path) -> None:
    assert texts(saved / "both") == ["a", "b"]
    assert texts(saved / "both", split="test") == ["c"]
    assert texts(saved / "both", default_split="test") == ["c"]
    assert refusal(saved / "both", split="dev") == (
        "data source FOLDER: no file in it is of split 'validation'; they name test, train: say "
        "which with split, or name the files, e.g. FOLDER/*"
    )
