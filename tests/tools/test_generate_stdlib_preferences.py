"""The generator of data/stdlib_preferences, and the files it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data" / "stdlib_preferences"


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_it_writes_the_committed_bytes_again(tmp_path: Path) -> None:
    script = ROOT / "tools" / "generate_stdlib_preferences.py"
    subprocess.run([sys.executable, str(script), "--output-dir", str(tmp_path)], check=True)
    for name in ("train.jsonl", "held_out.jsonl"):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_the_worse_answer_is_what_its_fault_says() -> None:
    train, held_out = rows(DATA / "train.jsonl"), rows(DATA / "held_out.jsonl")
    assert (len(train), len(held_out)) == (400, 80)
    assert not {row["module"] for row in train} & {row["module"] for row in held_out}
    answers: dict[str, set[str]] = {}
    for name in ("train.jsonl", "held_out.jsonl"):
        for row in rows(ROOT / "data" / "stdlib_qa" / name):
            answers.setdefault(row["response"], set()).add(row["module"])
    for row in train + held_out:
        assert row["module"] in answers[row["chosen"]]
        if row["fault"] == "cut off":
            assert row["chosen"].startswith(row["rejected"])
            assert len(row["rejected"]) < 0.9 * len(row["chosen"])
        else:
            assert row["module"] not in answers[row["rejected"]]
    assert sum(row["fault"] == "cut off" for row in train) == 200
