"""Write the preference data set, data/stdlib_preferences, from the rows of data/stdlib_qa.

    python tools/generate_stdlib_preferences.py

A pair's better answer is the docstring's. The worse one is the answer to a question about another
module, of about the same length, or the docstring's own, cut off in the middle of a sentence.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE_DIR = ROOT / "data" / "stdlib_qa"
DEFAULT_OUTPUT_DIR = ROOT / "data" / "stdlib_preferences"

ROWS = {"train.jsonl": 400, "held_out.jsonl": 80}
SEED = 0
# Answer length, in characters: short rows keep the example run short.
MIN_ANSWER = 60
MAX_ANSWER = 240
# Another module's answer is the nearest in length of so many drawn ones.
DRAWN = 25
# A cut answer keeps this share of its words.
KEPT = (0.4, 0.7)

Row = dict[str, str]


def make_pairs(rows: Sequence[Row], count: int) -> list[Row]:
    """Make ``count`` pairs of the first rows that fit, every other one with a cut answer."""
    chooser = random.Random(SEED)
    fitting = [row for row in rows if MIN_ANSWER <= len(row["response"]) <= MAX_ANSWER]
    pairs = []
    for number, row in enumerate(fitting[:count]):
        fault = "cut off" if number % 2 else "other module"
        worse = (
            cut_off(row["response"], chooser)
            if fault == "cut off"
            else other_answer(row, fitting, chooser)
        )
        pairs.append(
            {
                "prompt": row["instruction"],
                "chosen": row["response"],
                "rejected": worse,
                "fault": fault,
                "module": row["module"],
            }
        )
    return pairs


def other_answer(row: Row, rows: Sequence[Row], chooser: random.Random) -> str:
    """The answer to a question about another module, of nearly the same length."""
    others = [other for other in rows if other["module"] != row["module"]]
    drawn = chooser.sample(others, min(DRAWN, len(others)))
    return min(drawn, key=lambda other: abs(len(other["response"]) - len(row["response"])))[
        "response"
    ]


def cut_off(answer: str, chooser: random.Random) -> str:
    """An answer that stops in the middle of a sentence."""
    words = answer.split(" ")
    kept = words[: max(3, round(len(words) * chooser.uniform(*KEPT)))]
    return " ".join(kept).rstrip(" .,;:!?\n")


def main() -> None:
    """Read the questions and answers, and write both files."""
    parser = argparse.ArgumentParser(description="Write data/stdlib_preferences.")
    parser.add_argument("--output-dir", type=Path, default=DEFAULT_OUTPUT_DIR)
    output = parser.parse_args().output_dir
    output.mkdir(parents=True, exist_ok=True)
    for name, count in ROWS.items():
        with (SOURCE_DIR / name).open(encoding="utf-8") as lines:
            pairs = make_pairs([json.loads(line) for line in lines], count)
        text = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
        (output / name).write_text(text, encoding="utf-8")
        print(f"{output / name}: {len(pairs)} pairs")


if __name__ == "__main__":
    main()
