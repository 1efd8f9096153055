"""The shipped recipes that people copy: a dry run of each says what its header says.

By configuration files of the right shape, written after the Hub's (``tests/corpus/models``): no weights.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llm_engineering.commands.finetune import run
from llm_engineering.planning import hardware

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "tests" / "corpus" / "models"
RECIPES = sorted(folder.name for folder in MODELS.iterdir())


def header(recipe: str) -> str:
    text = (ROOT / "configs" / f"{recipe}.yaml").read_text(encoding="utf-8")
    return "\n".join(
        re.findall(r"^# ?(.*)$", text, flags=re.M)[: text.split("\n\n")[0].count("\n") + 1]
    )


def test_the_recipes_of_the_families_are_there() -> None:
    assert RECIPES == ["gemma3_4b", "gpt_oss_20b", "qwen3_30b_a3b", "qwen3_8b"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_header_is_what_a_dry_run_says(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_gpu", lambda: False)
    run(ROOT / "configs" / f"{recipe}.yaml", [f"model.id={MODELS / recipe}"], dry_run=True)
    said = capsys.readouterr().out
    stated = header(recipe)

    assert f"--finetune --config configs/{recipe}.yaml" in stated
    shape = re.search(r"^[\d.]+B parameters.*in the adapter$", stated, flags=re.M)
    assert shape is not None
    assert f"\n  {shape[0]}\n" in said
    cards = re.findall(r"^\S.*GiB  micro-batch.*$", stated, flags=re.M)
    assert cards
    for card in cards:
        assert f"\n  {card}\n" in said
    rate = re.search(r"learning rate (\S+)", stated)
    assert rate is not None
    assert f"; learning rate {rate[1]} (auto: " in said
    assert "this run would be refused" not in said
    assert "not planned" not in said
    assert "warning" not in said
