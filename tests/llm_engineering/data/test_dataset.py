"""The prepared data set on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.dataset import DatasetSummary, PreparedDataset, SourceSummary
from llm_engineering.data.tokens.audit import LabelAudit, LabelledPiece

AUDIT = LabelAudit(
    rows=2,
    tokens=7,
    trained_tokens=3,
    longest_row=4,
    length_bin=1,
    rows_by_length=[0, 0, 1, 1],
    truncated_rows=0,
    stop_tokens=2,
    example_origin="Größe.jsonl:1",
    example=[LabelledPiece(text="日本", trained=True)],
)
SUMMARY = DatasetSummary(
    held_out_digest="4" * 64,
    sources=[SourceSummary(source="Größe.jsonl", rows=3)],
    bad_rows=["Größe.jsonl:2: response is empty"],
    train=AUDIT,
    held_out=AUDIT.model_copy(update={"rows": 1}),
    digest="0" * 64,
)
MESSAGES = json.dumps([{"role": "user", "content": "日本"}], ensure_ascii=False)
SPLITS: dict[str, dict[str, list[Any]]] = {
    "train": {
        "input_ids": [[1, 2, 3], [4, 5, 6, 7]],
        "labels": [[-100, 2, 3], [-100, -100, -100, 7]],
        "origin": ["Größe.jsonl:1", "Größe.jsonl:3"],
        "messages": [MESSAGES, MESSAGES],
        "prompt_tokens": [1, 3],
        "answer": [1, 1],
    },
    "held_out": {
        "input_ids": [[9]],
        "labels": [[9]],
        "origin": ["held_out.jsonl:1"],
        "messages": [MESSAGES],
        "prompt_tokens": [0],
        "answer": [0],
    },
}


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = PreparedDataset.write(tmp_path, SPLITS, SUMMARY)

    found = PreparedDataset.read(tmp_path)

    assert found == written
    assert found.summary == SUMMARY
    for name, columns in SPLITS.items():
        assert found.split(name).to_dict() == columns


def test_token_ids_and_labels_take_four_bytes(tmp_path: Path) -> None:
    features = PreparedDataset.write(tmp_path, SPLITS, SUMMARY).split("train").features

    assert list(features) == [
        *("input_ids", "labels", "origin", "messages"),
        *("prompt_tokens", "answer"),
    ]
    assert features["input_ids"].feature.dtype == "int32"
    assert features["labels"].feature.dtype == "int32"


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    PreparedDataset.write(tmp_path / "first", SPLITS, SUMMARY)
    (tmp_path / "first").rename(tmp_path / "second")

    assert PreparedDataset.read(tmp_path / "second").split("held_out")["input_ids"][:] == [[9]]


def test_the_summary_is_readable_json(tmp_path: Path) -> None:
    PreparedDataset.write(tmp_path, SPLITS, SUMMARY)

    values = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))

    assert values["bad_rows"] == ["Größe.jsonl:2: response is empty"]
    assert values["train"]["trained_tokens"] == 3
    assert values["held_out"]["rows"] == 1


def test_there_is_no_third_split(tmp_path: Path) -> None:
    prepared = PreparedDataset.write(tmp_path, SPLITS, SUMMARY)

    with pytest.raises(FileNotFoundError):
        prepared.split("test")
