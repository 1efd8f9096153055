"""Which rows are held out where a fraction is: drawn by their text, again and again the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.errors import DataError

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[[FinetuningConfig], PreparedDataset]

GOOD = {"instruction": "What is 1 + 1?", "response": "Two."}


def refusal(prepare: Prepare, config: FinetuningConfig) -> str:
    with pytest.raises(DataError) as caught:
        prepare(config)
    return str(caught.value)


def sources(*paths: Path, **settings: Any) -> dict[str, Any]:
    return {"data.sources": [{"source": str(path), **settings} for path in paths]}


def line_numbers(prepared: PreparedDataset, split: str) -> list[int]:
    return [int(origin.rpartition(":")[2]) for origin in prepared.split(split)["origin"]]


def by_fraction(fraction: float, seed: int = 0, **settings: Any) -> dict[str, Any]:
    return {"data.held_out": {"fraction": fraction, **settings}, "run.seed": seed}


def test_a_fraction_is_held_out_in_order_and_apart(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    prepared = prepare(make_config(by_fraction(0.25)))

    train, held_out = line_numbers(prepared, "train"), line_numbers(prepared, "held_out")
    assert 6 <= len(held_out) <= 18  # a quarter of 48, about
    assert (train, held_out) == (sorted(train), sorted(held_out))
    assert sorted(train + held_out) == list(range(1, 49))
    assert held_out != list(range(37, 49))  # drawn, not cut off the end


def test_the_seed_chooses_the_held_out_rows(prepare: Prepare, make_config: MakeConfig) -> None:
    first, again, other = (
        line_numbers(prepare(make_config(by_fraction(0.25, seed))), "held_out")
        for seed in (1, 1, 2)
    )

    assert first == again
    assert first != other


def test_at_least_one_row_is_held_out(prepare: Prepare, make_config: MakeConfig) -> None:
    assert len(line_numbers(prepare(make_config(by_fraction(0.001))), "held_out")) == 1


def test_data_that_grows_keeps_every_row_on_its_side(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    config = make_config(by_fraction(0.25))
    source = Path(config.data.sources[0].source)
    lines = source.read_text().splitlines()
    source.write_text("\n".join(lines[:30]) + "\n")
    few = prepare(config)
    source.write_text("\n".join(lines) + "\n")
    more = prepare(config)

    first_30 = [line for line in line_numbers(more, "held_out") if line <= 30]
    assert line_numbers(few, "held_out") == first_30
    assert len(line_numbers(more, "held_out")) > len(first_30)


def test_equal_rows_are_never_on_both_sides(prepare: Prepare, make_config: MakeConfig) -> None:
    config = make_config(by_fraction(0.25))
    source = Path(config.data.sources[0].source)
    source.write_text(source.read_text() * 2)
    prepared = prepare(config)

    train, held_out = (set(prepared.split(name)["messages"][:]) for name in ("train", "held_out"))
    assert not train & held_out


def test_rows_that_share_a_group_are_on_one_side(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    rows = [{**GOOD, "response": str(n), "author": n % 8} for n in range(64)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)

    prepared = prepare(make_config({**sources(path), **by_fraction(0.4, group="author")}))

    train, held_out = (
        {line % 8 for line in line_numbers(prepared, split)} for split in ("train", "held_out")
    )
    assert train
    assert held_out
    assert not train & held_out


def test_a_row_without_its_group_is_a_bad_row(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    rows = [{**GOOD, "author": "a"}, GOOD, {**GOOD, "author": ["a"]}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    config = make_config({**sources(path), **by_fraction(0.4, group="author")})

    assert refusal(prepare, config).splitlines()[:2] == [
        f"{path}:2: has no value in column author, which data.held_out.group names",
        f"{path}:3: has a list in column author, which data.held_out.group names",
    ]


def test_max_rows_of_a_fraction_are_its_first(prepare: Prepare, make_config: MakeConfig) -> None:
    whole = prepare(make_config(by_fraction(0.25)))
    part = prepare(make_config(by_fraction(0.25, max_rows=4)))

    assert line_numbers(part, "held_out") == line_numbers(whole, "held_out")[:4]
    assert line_numbers(part, "train") == line_numbers(whole, "train")


def test_a_fraction_that_takes_every_row_leaves_nothing_to_train_on(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    config = make_config(by_fraction(0.999))

    assert refusal(prepare, config) == (
        "data.sources: no usable row is left to train on in " + config.data.sources[0].source
    )
