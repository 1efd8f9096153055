"""The prepared data set on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.data.dataset import PreparedDataset, SplitWriter, to_table
from llm_engineering.data.summary import DatasetSummary, SourceSummary
from llm_engineering.data.tokens.audit import LabelAudit, LabelledPiece
from llm_engineering.data.tokens.prepared import PreparedAnswer, PreparedConversation

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
CONVERSATION = json.dumps({"messages": [{"role": "user", "content": "日本"}]}, ensure_ascii=False)
SPLITS: dict[str, dict[str, list[Any]]] = {
    "train": {
        "input_ids": [[1, 2, 3], [4, 5, 6, 7]],
        "labels": [[-100, 2, 3], [-100, -100, -100, 7]],
        "origin": ["Größe.jsonl:1", "Größe.jsonl:3"],
        "conversation": [CONVERSATION, CONVERSATION],
        "prompt_tokens": [1, 3],
        "answer": [1, 1],
    },
    "held_out": {
        "input_ids": [[9]],
        "labels": [[9]],
        "origin": ["held_out.jsonl:1"],
        "conversation": [CONVERSATION],
        "prompt_tokens": [0],
        "answer": [0],
    },
}


def write(folder: Path) -> PreparedDataset:
    """Write both splits as their columns say, and their summary."""
    for name, columns in SPLITS.items():
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        with SplitWriter(folder / name, PreparedConversation) as split:
            split.add(to_table([PreparedConversation(**row) for row in rows], split.schema))
    return PreparedDataset.write(folder, SUMMARY)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write(tmp_path)

    found = PreparedDataset.read(tmp_path)

    assert found == written
    assert found.summary == SUMMARY
    for name, columns in SPLITS.items():
        assert found.split(name).to_dict() == columns


def test_token_ids_and_labels_take_four_bytes(tmp_path: Path) -> None:
    features = write(tmp_path).split("train").features

    assert list(features) == [
        *("input_ids", "labels", "origin", "conversation"),
        *("prompt_tokens", "answer"),
    ]
    assert features["input_ids"].feature.dtype == "int32"
    assert features["labels"].feature.dtype == "int32"


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    write(tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "second")

    assert PreparedDataset.read(tmp_path / "second").split("held_out")["input_ids"][:] == [[9]]


def test_the_summary_is_readable_json(tmp_path: Path) -> None:
    write(tmp_path)

    values = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))

    assert values["bad_rows"] == ["Größe.jsonl:2: response is empty"]
    assert values["train"]["trained_tokens"] == 3
    assert values["held_out"]["rows"] == 1


def test_there_is_no_third_split(tmp_path: Path) -> None:
    prepared = write(tmp_path)

    with pytest.raises(FileNotFoundError):
        prepared.split("test")


def test_another_split_at_the_same_place_has_another_fingerprint(tmp_path: Path) -> None:
    """By it, ``datasets`` and trl find again what they have made of a split."""
    seen = set()
    for token in (1, 2, 3):
        row = PreparedAnswer([1, token], [-100, token], "a.jsonl:1", "{}", [1], [token], label=True)
        with SplitWriter(tmp_path / "train", PreparedAnswer) as writer:
            writer.add(to_table([row], writer.schema))
        seen.add(PreparedDataset(tmp_path, SUMMARY).split("train")._fingerprint)

    assert len(seen) == 3


def test_a_split_of_no_row_has_its_columns(tmp_path: Path) -> None:
    with SplitWriter(tmp_path / "train", PreparedAnswer):
        pass

    split = PreparedDataset(tmp_path, SUMMARY).split("train")

    assert len(split) == 0
    assert {name: feature.dtype for name, feature in split.features.items() if name == "label"} == {
        "label": "bool"
    }
    assert list(split.features) == [
        *("input_ids", "labels", "origin", "conversation"),
        *("prompt_ids", "completion_ids", "label"),
    ]


def test_batches_of_a_split_follow_one_another(tmp_path: Path) -> None:
    rows = [
        PreparedAnswer([1, 2], [-100, 2], f"a.jsonl:{n}", "[]", [1], [2], label=n % 2 == 0)
        for n in range(5)
    ]
    with SplitWriter(tmp_path / "train", PreparedAnswer) as writer:
        for batch in (rows[:2], [], rows[2:]):
            writer.add(to_table(batch, writer.schema))

    split = PreparedDataset(tmp_path, SUMMARY).split("train")

    assert split["origin"][:] == [f"a.jsonl:{n}" for n in range(5)]
    assert split["label"][:] == [True, False, True, False, True]
