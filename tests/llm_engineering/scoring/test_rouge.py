"""Tests of ``llm_engineering.scoring.rouge`` against figures of the package rouge-score 0.1.2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_engineering.scoring.rouge import rouge_l, words

DATA = Path(__file__).resolve().parents[3] / "data" / "stdlib_qa" / "held_out.jsonl"
# RougeScorer(["rougeL"]).score(row, next row)["rougeL"].fmeasure, the mean over all 272 rows.
MEAN_OF_NEIGHBOURS = 0.0733082876177914


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("the cat sat", "the cat sat on the mat", 0.6666666666666666),
        ("on the mat the cat sat", "the cat sat on the mat", 0.5),
        ("Return a list.", "Returns the list of 2-tuples (variable, value).", 0.18181818181818182),
        ("a_b C++", "a b c", 1.0),
        ("x", "y", 0.0),
        ("", "", 0.0),
        ("", "a", 0.0),
    ],
)
def test_as_rouge_score_has_it(answer: str, reference: str, expected: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(expected, abs=1e-12)


def test_on_every_held_out_row_of_the_embedded_data() -> None:
    rows = [json.loads(line)["response"] for line in DATA.read_text(encoding="utf-8").splitlines()]
    found = [rouge_l(b, a) for a, b in zip(rows, rows[1:] + rows[:1], strict=True)]
    assert sum(found) / len(found) == pytest.approx(MEAN_OF_NEIGHBOURS, abs=1e-12)


@pytest.mark.parametrize("text", ["Привет, мир", "你好世界", "สวัสดี", "여보세요 세계", "übermäßig"])
def test_other_scripts_than_latin_have_words(text: str) -> None:
    """rouge-score gives 0 here."""
    assert rouge_l(text, text) == 1.0


def test_scripts_without_spaces_are_compared_by_character() -> None:
    assert words("GPT是模型") == ["gpt", "是", "模", "型"]
    assert rouge_l("我喜欢猫", "我喜欢狗") == pytest.approx(0.75)
