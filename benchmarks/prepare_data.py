"""Preparing data in one process, in many, and the plain ``datasets`` way: speed and peak memory.

.venv/bin/python benchmarks/prepare_data.py 200000 1000000
.venv/bin/python benchmarks/prepare_data.py 1000000 --near 0.8 --processes 16 --without-plain

makes so many short rows, prepares them each way in a process of its own, one after the other, and
prints a line each: rows per second, CPU seconds of all processes, peak resident memory of the main
process, and of the largest of the others. The data that one process and many give must have the
same digests. The plain way reads the same file with ``load_dataset``, tokenizes by ``map`` with the
same chat template, masks the prompt, splits, and saves; it checks nothing.
"""

from __future__ import annotations

import argparse
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

from llm_engineering.data.workers import usable_cores  # noqa: E402

MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
HELD_OUT = 0.01
LONGEST = 512  # tokens


def main(arguments: argparse.Namespace) -> None:
    """Compare the ways for each number of rows."""
    ways = ["1", str(arguments.processes), *([] if arguments.without_plain else ["plain"])]
    for count in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            write_rows(rows, count)
            size = rows.stat().st_size
            print(f"{count:,} rows, {size / 1e6:,.0f} MB", flush=True)
            digests = set()
            for way in ways:
                command = [sys.executable, __file__, "--way", way, "--folder", folder]
                command += ["--near", str(arguments.near)] if arguments.near else []
                environment = os.environ | {"HF_HOME": f"{folder}/hub", "HF_HUB_OFFLINE": "1"}
                done = subprocess.run(
                    command, env=environment, check=True, capture_output=True, text=True
                )
                figures = json.loads(done.stdout.splitlines()[-1])
                if way != "plain":
                    digests.add(figures["digest"])
                    way += " process" if way == "1" else " processes"
                print(
                    f"  {way:<13} {count / figures['seconds']:>8,.0f} rows/s "
                    f"{figures['seconds']:>8,.1f} s  CPU {figures['cpu']:>8,.1f} s  peak "
                    f"{figures['peak'] / 1e6:>6,.0f} MB, of it {figures['before'] / 1e6:,.0f} before"
                    f"; others {figures['others'] / 1e6:,.0f} MB at most",
                    flush=True,
                )
            if len(digests) != 1:
                raise SystemExit(f"the data differs: {sorted(digests)}")
            print(f"  the same data: SHA-256 {digests.pop()}", flush=True)


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


def stream(rows: Path, folder: Path, processes: int, near: float | None) -> tuple[float, str]:
    """This project's way; returns when it began, its imports done, and the data's digest."""
    from llm_engineering.configuration.data import DataSettings
    from llm_engineering.configuration.model import ModelSettings
    from llm_engineering.data.prepare import prepare_data
    from llm_engineering.model.tokenizer import load_tokenizer

    data = DataSettings.model_validate(
        {
            "sources": [{"source": str(rows)}],
            "held_out": {"fraction": HELD_OUT},
            "max_truncated_share": 1.0,
            "num_proc": processes,
            "near_duplicates": near,
        }
    )
    model = ModelSettings(id=str(MODEL), max_seq_length=LONGEST)
    load_tokenizer(model, trains=False)
    began = time.perf_counter()

    def refuse(reason: str) -> None:
        raise SystemExit(reason)

    dataset = prepare_data(data, model, folder=folder, refuse=refuse, trains=False)
    return began, dataset.summary.digest


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


def peak(who: int = resource.RUSAGE_SELF) -> int:
    """Peak resident memory of this process, or of the largest that it has waited for, in bytes."""
    return resource.getrusage(who).ru_maxrss * 1024


def run(way: str, folder: Path, near: float | None) -> None:
    """Prepare one way, and print its figures."""
    import datasets  # noqa: F401
    import transformers  # noqa: F401

    before, digest = peak(), ""
    if way == "plain":
        began = plain(folder / "rows.jsonl", folder / way)
    else:
        began, digest = stream(folder / "rows.jsonl", folder / way, int(way), near)
    seconds = time.perf_counter() - began
    end_server()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": sum(os.times()[:4]),
                "before": before,
                "peak": peak(),
                "others": peak(resource.RUSAGE_CHILDREN),
                "digest": digest,
            }
        )
    )


def end_server() -> None:
    """End the server that the processes were forked from: their times count only then."""
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="*", default=[200_000])
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--near", type=float, help="data.near_duplicates")
    parser.add_argument("--without-plain", action="store_true")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    given = parse()
    if given.way:
        run(given.way, given.folder, given.near)
    else:
        main(given)
