"""Which rows are held out where a fraction is: drawn by their text, again and again the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.select.split import first_of, is_held_out
from llm_engineering.errors import DataError

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[[FinetuningConfig], PreparedDataset]
Refusal = Callable[[FinetuningConfig], str]
Sources = Callable[..., dict[str, Any]]
LineNumbers = Callable[[PreparedDataset, str], list[int]]


def by_fraction(fraction: float, seed: int = 0, **settings: Any) -> dict[str, Any]:
    return {"data.held_out": {"fraction": fraction, **settings}, "data.seed": seed}


def test_a_fraction_is_held_out_in_order_and_apart(
    prepare: Prepare, make_config: MakeConfig, line_numbers: LineNumbers
) -> None:
    prepared = prepare(make_config(by_fraction(0.25)))

    train, held_out = line_numbers(prepared, "train"), line_numbers(prepared, "held_out")
    assert 6 <= len(held_out) <= 18  # a quarter of 48, about
    assert (train, held_out) == (sorted(train), sorted(held_out))
    assert sorted(train + held_out) == list(range(1, 49))
    assert held_out != list(range(37, 49))  # drawn, not cut off the end


def test_the_seed_of_the_data_chooses_the_held_out_rows(
    prepare: Prepare, make_config: MakeConfig, line_numbers: LineNumbers
) -> None:
    first, again, another = (
        line_numbers(prepare(make_config(by_fraction(0.25, seed))), "held_out")
        for seed in (1, 1, 2)
    )
    config = make_config({**by_fraction(0.25, 1), "run.seed": 7})

    assert first == again
    assert first != another
    assert first == line_numbers(prepare(config), "held_out")  # the run's moves no row


def test_at_least_one_row_is_held_out(
    prepare: Prepare, make_config: MakeConfig, line_numbers: LineNumbers
) -> None:
    assert len(line_numbers(prepare(make_config(by_fraction(0.001))), "held_out")) == 1


def test_data_that_grows_keeps_every_row_on_its_side(
    prepare: Prepare, make_config: MakeConfig, line_numbers: LineNumbers
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

    train, held_out = (
        set(prepared.split(name)["conversation"][:]) for name in ("train", "held_out")
    )
    assert not train & held_out


def test_rows_that_share_a_group_are_on_one_side(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    sources: Sources,
    line_numbers: LineNumbers,
    good: dict[str, Any],
) -> None:
    rows = [{**good, "instruction": f"{n}?", "author": n % 8} for n in range(64)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)

    prepared = prepare(make_config({**sources(path), **by_fraction(0.4, group="author")}))

    train, held_out = (
        {line % 8 for line in line_numbers(prepared, split)} for split in ("train", "held_out")
    )
    assert train
    assert held_out
    assert not train & held_out


def test_a_row_without_its_group_is_a_bad_row(
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    refusal: Refusal,
    sources: Sources,
    good: dict[str, Any],
) -> None:
    rows = [{**good, "author": "a"}, good, {**good, "author": ["a"]}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    config = make_config({**sources(path), **by_fraction(0.4, group="author")})

    assert refusal(config).splitlines()[:2] == [
        f"{path}:2: has no value in column author, which data.held_out.group names",
        f"{path}:3: has a list in column author, which data.held_out.group names",
    ]


def test_rows_that_begin_alike_are_on_one_side_and_leak_nothing(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    sources: Sources,
    tmp_path: Path,
) -> None:
    """Conversations unrolled to their prefixes, and many answers to one prompt."""
    rows = []
    for number in range(40):
        turns = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"Question {number}?"},
            {"role": "assistant", "content": f"Answer {number}."},
            {"role": "user", "content": "And then?"},
            {"role": "assistant", "content": f"More of {number}."},
        ]
        answered = [*turns[:2], {"role": "assistant", "content": "Another answer."}]
        shouted = [turns[0], {"role": "user", "content": f"QUESTION  {number}?"}, turns[2]]
        rows += [{"messages": some} for some in (turns[:3], turns, answered, shouted)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)

    prepared = prepare(make_config({**sources(path), **by_fraction(0.3), "data.on_leaks": "error"}))

    sides = [
        {(int(origin.rpartition(":")[2]) - 1) // 4 for origin in prepared.split(name)["origin"]}
        for name in ("train", "held_out")
    ]
    assert not sides[0] & sides[1]
    assert sorted(sides[0] | sides[1]) == list(range(40))
    assert len(prepared.split("held_out")) == 4 * len(sides[1])
    assert prepared.summary.leaks is not None
    assert prepared.summary.leaks.count == 0


def test_answers_to_one_prompt_alone_cannot_be_split(
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    refusal: Refusal,
    sources: Sources,
    good: dict[str, Any],
    tmp_path: Path,
) -> None:
    for count in (2, 10):
        rows = [{**good, "response": str(n)} for n in range(count)]
        path = write_jsonl(tmp_path / f"{count}.jsonl", rows)

        assert refusal(make_config({**sources(path), **by_fraction(0.4)})).startswith(
            f"data.held_out.fraction: all {count} training rows have the same first prompt, and such "
            "rows are held out together; give data.held_out.source"
        )


def test_a_row_that_is_alone_is_held_out_and_none_is_left(
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    refusal: Refusal,
    sources: Sources,
    good: dict[str, Any],
    tmp_path: Path,
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [good])

    assert refusal(make_config({**sources(path), **by_fraction(0.4)})).startswith(
        "data.sources: no usable row is left to train on"
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_files_and_rows_moves_no_row(
    seed: int,
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    sources: Sources,
    tmp_path: Path,
) -> None:
    """Whatever files rows lie in and in whatever order, the same are drawn, held out and left."""
    choose = random.Random(seed)
    words = [f"word{number}" for number in range(60)]
    rows = [
        {"instruction": " ".join(choose.choices(words, k=6)), "response": choose.choice(words)}
        for _ in range(120)
    ]
    rows += choose.sample(rows, 10)  # some twice
    settings = {**by_fraction(0.3, seed, max_rows=20), "data.on_duplicates": "drop"}

    def splits(files: list[list[dict[str, str]]]) -> list[list[str]]:
        paths = [
            write_jsonl(tmp_path / f"{number}.jsonl", some) for number, some in enumerate(files)
        ]
        prepared = prepare(make_config({**sources(*paths), **settings}))
        return [sorted(prepared.split(name)["conversation"]) for name in ("train", "held_out")]

    shuffled = choose.sample(rows, len(rows))
    assert splits([rows]) == splits([shuffled[:50], shuffled[50:]])


def test_max_rows_are_drawn_from_all_that_is_held_out(
    prepare: Prepare, make_config: MakeConfig, line_numbers: LineNumbers
) -> None:
    whole = prepare(make_config(by_fraction(0.5)))
    part = prepare(make_config(by_fraction(0.5, max_rows=8)))
    other = prepare(make_config(by_fraction(0.5, max_rows=8, seed=3)))

    every, drawn = line_numbers(whole, "held_out"), line_numbers(part, "held_out")
    assert len(drawn) == 8
    assert drawn == sorted(drawn)
    assert set(drawn) < set(every)
    assert drawn != every[:8]
    assert line_numbers(part, "train") == line_numbers(whole, "train")
    assert part.summary.held_out_unused == len(every) - 8
    assert whole.summary.held_out_unused == 0
    assert line_numbers(other, "held_out") != drawn


def test_max_rows_of_several_files_come_from_each(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        rows = [{"instruction": f"{name} {n}?", "response": "Yes."} for n in range(100)]
        write_jsonl(tmp_path / "held" / f"{name}.jsonl", rows)
    held = {"source": str(tmp_path / "held"), "max_rows": 64}

    prepared = prepare(make_config({"data.held_out": held}))
    few = {**held, "max_rows": 32}
    origins = prepared.split("held_out")["origin"][:]

    names = [Path(origin.rpartition(":")[0]).name for origin in origins]
    assert 20 <= names.count("a.jsonl") <= 44  # of 64, half: within three standard errors
    assert prepared.summary.held_out_unused == 136
    assert set(prepare(make_config({"data.held_out": few})).split("held_out")["origin"]) < set(
        origins
    )


def test_a_fraction_that_takes_every_row_leaves_nothing_to_train_on(
    make_config: MakeConfig, refusal: Refusal, sources: Sources
) -> None:
    config = make_config(by_fraction(0.999))

    assert refusal(config) == (
        "data.sources: no usable row is left to train on in " + config.data.sources[0].source
    )


def test_rows_that_training_looks_at_are_none_of_those_that_judge_it(
    prepare: Prepare, make_config: MakeConfig, line_numbers: LineNumbers
) -> None:
    changes = {**by_fraction(0.5), "train.evaluate_every": 1}
    plain = line_numbers(prepare(make_config(changes)), "held_out")
    best = prepare(make_config({**changes, "train.keep_best": True}))
    judging, looked_at = line_numbers(best, "held_out"), line_numbers(best, "validation")

    assert judging
    assert looked_at
    assert sorted(judging + looked_at) == plain
    assert best.summary.validation is not None
    assert best.summary.validation.rows == len(looked_at)
    shared = make_config(
        {**changes, "train.keep_best": True, "data.held_out.validation_fraction": 0.0}
    )
    same = prepare(shared)
    assert line_numbers(same, "held_out") == plain
    assert same.validation() is None
    limited = {**by_fraction(0.5, max_rows=2), "train.evaluate_every": 1, "train.keep_best": True}
    assert prepare(make_config(limited)).summary.held_out_unused == len(plain) - 2 - 2


def test_a_held_out_row_that_is_alone_cannot_do_both(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    changes = {**by_fraction(0.001), "train.evaluate_every": 1, "train.keep_best": True}
    with pytest.raises(DataError, match=r"validation_fraction .* leaves none to judge by"):
        prepare(make_config(changes))


# --- by their keys alone -----------------------------------------------------------------------

EIGHTHS = numpy.arange(1, 8, dtype="uint64") << numpy.uint64(61)
"""Keys that are 1/8, 2/8 ... 7/8 of all."""


@pytest.mark.parametrize(
    ("fraction", "held_out"),
    [(0.5, 4), (0.49, 3), (0.126, 1), (0.01, 1), (0.0, 1), (0.99, 7)],
)
def test_keys_up_to_the_fraction_are_held_out_and_one_at_least(
    fraction: float, held_out: int
) -> None:
    order = numpy.array([3, 0, 6, 1, 5, 2, 4])

    drawn = is_held_out(EIGHTHS[order], fraction)

    assert drawn.dtype == bool
    assert drawn.tolist() == (order < held_out).tolist()


def test_of_no_rows_none_is_held_out() -> None:
    assert is_held_out(EIGHTHS[:0], 0.5).tolist() == []


def test_rows_that_share_the_least_key_are_held_out_together() -> None:
    assert is_held_out(EIGHTHS[[2, 1, 1, 3]], 0.0).tolist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("count", "positions"),
    [(0, []), (1, [2]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])],
)
def test_the_smallest_are_drawn_in_their_order(count: int, positions: list[int]) -> None:
    order = numpy.array([20, 40, 10, 30], dtype="uint64")

    assert first_of(order, count).tolist() == positions
    assert first_of(order, None).tolist() == [0, 1, 2, 3]


def test_of_equal_ones_the_first_are_drawn() -> None:
    order = numpy.array([1, 0] * 50, dtype="uint64")

    assert first_of(order, 20).tolist() == list(range(1, 41, 2))
