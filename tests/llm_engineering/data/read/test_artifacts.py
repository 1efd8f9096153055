"""Rows that an earlier ZenML pipeline made, whatever it returned them as."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.read.artifacts import find_artifact
from llm_engineering.data.read.row import Row
from llm_engineering.data.read.sources import Asked, is_artifact, read_rows
from llm_engineering.errors import DataError
from llm_engineering.lineage.fingerprints import take_fingerprints

ROWS = [
    {"instruction": "What is 1 + 1?", "answer": "Two."},
    {"instruction": "Größe, bitte", "answer": "日本"},
]


class Samples(BaseModel):
    """As the handbook's instruct data set: categories, each with its samples."""

    samples: list[dict[str, str]]


class Splits(BaseModel):
    train: dict[str, Samples]
    test: dict[str, Samples]


def as_dataset(folder: Path) -> Any:
    import datasets

    return datasets.Dataset.from_list(ROWS)


def as_frame(folder: Path) -> Any:
    import pandas

    return pandas.DataFrame(ROWS)


def as_splits(folder: Path) -> Any:
    return Splits(
        train={"posts": Samples(samples=ROWS[:1]), "articles": Samples(samples=ROWS[1:])},
        test={"posts": Samples(samples=[])},
    )


def as_folder(folder: Path) -> Any:
    folder.mkdir()
    for name, row in zip("ab", ROWS, strict=True):
        (folder / f"{name}.jsonl").write_text(json.dumps(row))
    return folder


MADE: dict[str, Callable[[Path], Any]] = {
    "dataset": as_dataset,
    "frame": as_frame,
    "list": lambda folder: ROWS,
    "splits": as_splits,
    "folder": as_folder,
}


def save(value: Any, name: str, version: str) -> None:
    from zenml import save_artifact

    save_artifact(value, name=name, version=version)


@pytest.mark.parametrize("kind", MADE)
def test_rows_come_back_in_order_with_their_place(kind: str, tmp_path: Path) -> None:
    save(MADE[kind](tmp_path / "rows"), f"rows_{kind}", "v1")
    places = ("a.jsonl:1", "b.jsonl:1") if kind == "folder" else ("row 1", "row 2")

    assert list(read_rows(f"zenml://rows_{kind}@v1")) == [
        Row(f"zenml://rows_{kind}@v1:{place}", row) for place, row in zip(places, ROWS, strict=True)
    ]


def test_the_newest_version_is_read_and_known_by_its_id(
    make_config: Callable[..., FinetuningConfig],
) -> None:
    config = make_config({"data.sources": [{"source": "zenml://growing"}]})
    save(ROWS[:1], "growing", "first")
    before, again = take_fingerprints(config).data, take_fingerprints(config).data
    save(ROWS, "growing", "second")

    assert before == again != take_fingerprints(config).data
    assert [row.origin for row in read_rows("zenml://growing")] == [
        "zenml://growing@second:row 1",
        "zenml://growing@second:row 2",
    ]
    assert find_artifact("zenml://growing@first").version == "first"


@pytest.mark.parametrize("source", ["zenml://never_made", "zenml://growing@none"])
def test_an_artifact_that_is_not_there(source: str) -> None:
    assert is_artifact(source)
    with pytest.raises(DataError, match="ZenML has no such artifact"):
        list(read_rows(source))


def test_an_artifact_without_rows() -> None:
    save(3, "number", "v1")

    with pytest.raises(DataError) as caught:
        list(read_rows("zenml://number"))

    assert str(caught.value).startswith(
        "data source zenml://number: the artifact is int, which has no rows; read are a "
    )


def test_an_empty_cell_of_a_data_frame_is_null_and_its_values_are_plain() -> None:
    import numpy
    import pandas

    frame = pandas.DataFrame(
        {
            "instruction": ["a", "b"],
            "input": [None, "c"],
            "score": [1.5, float("nan")],
            "label": [numpy.bool_(True), numpy.bool_(False)],
            "messages": [numpy.array(["x"]), None],
        }
    )
    save(frame, "cells", "v1")

    rows = [row.values for row in read_rows("zenml://cells@v1") if isinstance(row, Row)]

    assert rows[0] == {
        "instruction": "a",
        "input": None,
        "score": 1.5,
        "label": True,
        "messages": ["x"],
    }
    assert rows[1]["score"] is None
    assert type(rows[0]["label"]) is bool


@pytest.mark.parametrize(
    ("name", "asked", "reason"),
    [
        ("asked_list", Asked(split="dev"), "split 'dev', and the artifact has none; name one of"),
        ("asked_dict", Asked(split="dev"), "split 'dev', and the artifact has train, test; name"),
        ("asked_rev", Asked(revision="a"), "revision 'a', and an artifact has none; its version"),
        ("asked_sub", Asked(subset="de"), "subset 'de', and an artifact has none; its version"),
    ],
)
def test_what_an_artifact_does_not_have_is_refused(name: str, asked: Asked, reason: str) -> None:
    save({"train": ROWS, "test": ROWS} if name == "asked_dict" else ROWS, name, "v1")

    with pytest.raises(DataError) as caught:
        list(read_rows(f"zenml://{name}@v1", asked))

    assert str(caught.value).startswith(f"data source zenml://{name}@v1: {reason}")
