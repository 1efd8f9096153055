"""Preparing data as a stream against the plain ``datasets`` way: rows per second, peak memory.

.venv/bin/python benchmarks/prepare_data.py 200000 1000000

makes so many short rows, prepares them both ways in processes of their own, one after the other,
and prints a line each. The plain way reads the same file with ``load_dataset``, tokenizes by
``map`` with the same chat template, masks the prompt, splits, and saves; it checks nothing.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
HELD_OUT = 0.01
LONGEST = 512  # tokens


def main() -> None:
    """Compare both ways for each number of rows."""
    for count in map(int, sys.argv[1:] or ["200000"]):
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            write_rows(rows, count)
            size = rows.stat().st_size
            print(f"{count:,} rows, {size / 1e6:,.0f} MB", flush=True)
            for way in ("stream", "plain"):
                command = [sys.executable, __file__, way, str(rows), f"{folder}/{way}"]
                environment = os.environ | {"HF_HOME": f"{folder}/hub", "HF_HUB_OFFLINE": "1"}
                done = subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                )
                figures = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"  {way:<7} {count / figures['seconds']:>8,.0f} rows/s "
                    f"{figures['seconds']:>8,.1f} s  CPU {figures['cpu']:>8,.1f} s  peak "
                    f"{figures['peak'] / 1e6:>6,.0f} MB, of it {figures['before'] / 1e6:,.0f} before",
                    flush=True,
                )


def write_rows(path: Path, count: int) -> None:
    """Questions and answers of some 40 tokens, each different."""
    words = (ROOT / "data" / "stdlib_qa" / "train.jsonl").read_text().split()[:5000]
    choose = random.Random(0).choices
    with path.open("w") as file:
        for number in range(count):
            row = {
                "instruction": f"{number}: {' '.join(choose(words, k=8))}",
                "response": " ".join(choose(words, k=8)),
            }
            file.write(json.dumps(row) + "\n")


def stream(rows: Path, folder: Path) -> float:
    """This project's way; returns when it began, its imports done."""
    from llm_engineering.configuration.data import DataSettings
    from llm_engineering.configuration.model import ModelSettings
    from llm_engineering.data.prepare import prepare_data
    from llm_engineering.model.tokenizer import load_tokenizer

    data = DataSettings.model_validate(
        {
            "sources": [{"source": str(rows)}],
            "held_out": {"fraction": HELD_OUT},
            "max_truncated_share": 1.0,
        }
    )
    model = ModelSettings(id=str(MODEL), max_seq_length=LONGEST)
    load_tokenizer(model, trains=False)
    began = time.perf_counter()

    def refuse(reason: str) -> None:
        raise SystemExit(reason)

    prepare_data(data, model, folder=folder, refuse=refuse, trains=False)
    return began


def plain(rows: Path, folder: Path) -> float:
    """What a script with ``datasets`` does; returns when it began, its imports done."""
    import datasets
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    began = time.perf_counter()

    def tokenize(row: dict[str, str]) -> dict[str, list[int]]:
        messages = [{"role": "user", "content": row["instruction"]}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        messages.append({"role": "assistant", "content": row["response"]})
        ids = tokenizer.apply_chat_template(messages)["input_ids"][:LONGEST]
        return {"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt) :]}

    loaded = datasets.load_dataset("json", data_files=str(rows), split="train")
    tokenized = loaded.map(tokenize, remove_columns=loaded.column_names)
    tokenized.train_test_split(HELD_OUT, seed=0).save_to_disk(folder)
    return began


def peak() -> int:
    """Peak resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in ("stream", "plain"):
        import datasets  # noqa: F401
        import transformers  # noqa: F401

        before = peak()
        began = {"stream": stream, "plain": plain}[sys.argv[1]](
            Path(sys.argv[2]), Path(sys.argv[3])
        )
        figures = {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time(),
            "before": before,
            "peak": peak(),
        }
        print(json.dumps(figures))
    else:
        main()
