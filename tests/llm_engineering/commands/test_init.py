"""``--init``: what it writes of a look at the data passes as it stands, and it overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_engineering.commands import finetune, init
from llm_engineering.configuration import load_config
from llm_engineering.errors import ConfigError, DataError

HUB = "acme/not-here"
PAIR = {"prompt": "Best?", "chosen": "This {i}.", "rejected": "That {i}."}


def rows(path: Path, row: dict[str, Any], count: int = 30) -> Path:
    text = json.dumps(row)
    path.write_text("\n".join(text.replace("{i}", str(i)) for i in range(count)), encoding="utf-8")
    return path


def test_a_table_becomes_a_configuration_that_passes_its_dry_run(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "my: rows.csv"
    lines = [f'What is {i}?,"{i}, a number.",wiki' for i in range(29)]
    lines += [",nothing was asked,", "What is long?," + "word " * 90 + ","]
    table.write_text("Question,Answer,origin\n" + "\n".join(lines), encoding="utf-8")
    path = tmp_path / "my.yaml"

    init.run(path, str(table), str(tiny_model))

    config = load_config(path)
    (source,) = config.data.sources
    assert (source.source, source.columns) == (
        str(table),
        {"prompt": "Question", "completion": "Answer"},
    )
    assert config.data.held_out.fraction == 0.2
    assert config.data.on_bad_rows == "error"
    text = path.read_text(encoding="utf-8")
    assert "1 row cannot be learned from" in text
    assert "not read: column origin (29)" in " ".join(text.split())
    assert config.model.max_seq_length == 256
    assert "the longest row has " in text
    shown = capsys.readouterr().out
    assert f"tools/run.py --finetune --config {path} --dry-run" in shown

    finetune.run(path, [], dry_run=True)
    assert "dry run: nothing was loaded or written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "objective", "said"),
    [
        ({"instruction": "a {i}", "output": "b"}, "sft", "of the form alpaca"),
        ({"text": "once upon {i}"}, "sft", "of the form text"),
        (PAIR, "dpo", "pairs of answers"),
        ({"prompt": "a {i}", "completion": "b", "label": True}, "kto", "judged answers"),
    ],
)
def test_what_can_be_learned_is_told_by_the_rows(
    tmp_path: Path, row: dict[str, Any], objective: str, said: str
) -> None:
    path = tmp_path / "my.yaml"
    init.run(path, str(rows(tmp_path / "rows.jsonl", row)), HUB)

    config = load_config(path)
    text = path.read_text(encoding="utf-8")
    assert config.train.objective == objective
    assert said in text
    assert config.model.id == HUB
    assert "the model's tokenizer is not here" in text  # so the length is an estimate, and said so
    schema = text.splitlines()[0].partition("$schema=")[2]
    assert json.loads((path.parent / schema).read_text())["$schema"]


def test_what_is_not_read_is_told_without_a_tokenizer_too(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    init.run(path, str(rows(tmp_path / "rows.jsonl", {"text": "a {i}", "meta": "b"})), HUB)
    assert "not read: column meta (30)" in path.read_text(encoding="utf-8")


def test_the_estimate_holds_the_longest_row(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    init.run(path, str(rows(tmp_path / "rows.jsonl", {"text": "x" * 3000 + "{i}"})), HUB)
    assert yaml.safe_load(path.read_text())["model"]["max_seq_length"] == 1024


@pytest.mark.parametrize(("count", "share"), [(30, 0.2), (5000, 0.1), (100_000, 0.01)])
def test_enough_is_held_out_and_no_more(count: int, share: float) -> None:
    assert init._held_out(count) == share


def test_nothing_is_overwritten_or_half_written(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        init.run(path, "nowhere.csv", None)
    assert path.read_text() == "mine"
    with pytest.raises(ConfigError, match="there is no folder"):
        init.run(tmp_path / "deep" / "my.yaml", "nowhere.csv", None)
    other = tmp_path / "other.yaml"
    with pytest.raises(DataError, match="no such file"):
        init.run(other, str(tmp_path / "nowhere.csv"), HUB)
    with pytest.raises(DataError, match="none of the first 30 rows can be learned from"):
        init.run(other, str(rows(tmp_path / "rows.jsonl", {"a": "{i}"})), HUB)
    assert not other.exists()


@pytest.mark.parametrize(
    "text", ["a: b", "- x", "{a}", "null", "1.5", "x # y", 'say "so"', "plain"]
)
def test_any_name_reads_back_as_itself(text: str) -> None:
    assert yaml.safe_load(f"key: {init._quoted(text)}") == {"key": text}
