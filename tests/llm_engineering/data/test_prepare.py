"""Preparing the data as a whole: from files to two audited splits, or to a list of bad rows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.prepare import prepare_data
from llm_engineering.data.read.files import WHAT_TO_GIVE
from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.errors import DataError, ModelError

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]

GOOD = {"instruction": "What is 1 + 1?", "response": "Two."}
OTHER = {"instruction": "What is 2 + 2?", "response": "Four."}
ADVICE = "Mend them, or set data.on_bad_rows: skip to train without them (the report counts them)"


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., PreparedDataset]:
    """Prepare a configuration's data into a fresh folder."""
    folders = iter(tmp_path / "prepared" / str(number) for number in range(100))

    def prepare_config(config: FinetuningConfig) -> PreparedDataset:
        folder = next(folders)
        return prepare_data(config.data, config.model, seed=config.run.seed, folder=folder)

    return prepare_config


Prepare = Callable[[FinetuningConfig], PreparedDataset]


def refusal(prepare: Prepare, config: FinetuningConfig) -> str:
    with pytest.raises(DataError) as caught:
        prepare(config)
    return str(caught.value)


def sources(*paths: Path, **settings: Any) -> dict[str, Any]:
    return {"data.sources": [{"source": str(path), **settings} for path in paths]}


def line_numbers(prepared: PreparedDataset, split: str) -> list[int]:
    return [int(origin.rpartition(":")[2]) for origin in prepared.split(split)["origin"]]


# --- what comes of good data -------------------------------------------------------------------


def test_both_splits_hold_every_row_with_its_place(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    config = make_config()
    train, held_out = config.data.sources[0].source, config.data.held_out.source

    prepared = prepare(config)

    assert prepared.split("train")["origin"][:] == [f"{train}:{n}" for n in range(1, 49)]
    assert prepared.split("held_out")["origin"][:] == [f"{held_out}:{n}" for n in range(1, 13)]
    assert [(source.source, source.rows) for source in prepared.summary.sources] == [
        (train, 48),
        (held_out, 12),
    ]
    assert prepared.summary.bad_rows == []
    assert PreparedDataset.read(prepared.folder) == prepared


def test_the_audit_counts_what_is_stored(prepare: Prepare, make_config: MakeConfig) -> None:
    prepared = prepare(make_config())

    for name, rows, audit in [
        ("train", 48, prepared.summary.train),
        ("held_out", 12, prepared.summary.held_out),
    ]:
        split = prepared.split(name)
        lengths = [len(row) for row in split["input_ids"]]
        assert audit.rows == audit.stop_tokens == len(split) == rows
        assert audit.tokens == sum(lengths)
        assert audit.longest_row == max(lengths)
        assert audit.trained_tokens == sum(
            token != IGNORED for row in split["labels"] for token in row
        )
        assert audit.truncated_rows == 0
        assert audit.example_origin == split["origin"][0]


def test_the_answers_are_trained_and_the_messages_kept(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    from llm_engineering.model.tokenizer import load_tokenizer

    config = make_config()
    tokenizer = load_tokenizer(config.model)
    lines = Path(config.data.sources[0].source).read_text().splitlines()

    for line, row in zip(lines, prepare(config).split("train"), strict=True):
        stated = json.loads(line)
        trained = [token for token in row["labels"] if token != IGNORED]
        assert tokenizer.decode(trained) == stated["response"] + "<|im_end|>"
        assert json.loads(row["messages"]) == [
            {"role": "user", "content": stated["instruction"]},
            {"role": "assistant", "content": stated["response"]},
        ]


def test_sources_are_read_in_their_order_and_mixed_kinds(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    first = tmp_path / "first.csv"
    first.write_text("instruction,output\na,b\nc,d\n")
    messages = [{"role": "user", "content": "e"}, {"role": "assistant", "content": "f"}]
    second = write_jsonl(tmp_path / "second.jsonl", [{"messages": messages}])

    prepared = prepare(make_config(sources(first, second)))

    assert prepared.split("train")["origin"][:] == [f"{first}:2", f"{first}:3", f"{second}:1"]


def test_max_rows_takes_the_first_of_each_source(prepare: Prepare, make_config: MakeConfig) -> None:
    path = Path(make_config().data.sources[0].source)
    config = make_config({**sources(path, max_rows=5), "data.held_out.max_rows": 3})

    prepared = prepare(config)

    assert line_numbers(prepared, "train") == [1, 2, 3, 4, 5]
    assert line_numbers(prepared, "held_out") == [1, 2, 3]
    assert [source.rows for source in prepared.summary.sources] == [5, 12]


def test_rows_behind_max_rows_are_not_looked_at(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, GOOD, "{ broken"])

    assert prepare(make_config(sources(path, max_rows=2))).summary.train.rows == 2


def test_the_chat_template_of_the_configuration_is_used(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    config = make_config({"model.chat_template": "alpaca", "model.max_seq_length": 256})

    example = prepare(config).summary.train.example

    assert example[0].text.startswith("<|im_start|>Below is an instruction that describes a task.")
    assert example[0].text.endswith("\n\n### Response:\n")
    assert (example[0].trained, example[1].trained, len(example)) == (False, True, 2)


def test_loss_on_everything_trains_every_token(prepare: Prepare, make_config: MakeConfig) -> None:
    prepared = prepare(make_config({"data.loss_on": "everything"}))

    assert prepared.summary.train.trained_tokens == prepared.summary.train.tokens
    assert prepared.split("train")["labels"][:] == prepared.split("train")["input_ids"][:]


# --- held-out rows -----------------------------------------------------------------------------


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


def test_a_fraction_that_takes_every_row_leaves_nothing_to_train_on(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    config = make_config(by_fraction(0.999))

    assert refusal(prepare, config) == (
        "data.sources: no usable row is left to train on in " + config.data.sources[0].source
    )


def test_max_rows_of_a_fraction_are_its_first(prepare: Prepare, make_config: MakeConfig) -> None:
    whole = prepare(make_config(by_fraction(0.25)))
    part = prepare(make_config(by_fraction(0.25, max_rows=4)))

    assert line_numbers(part, "held_out") == line_numbers(whole, "held_out")[:4]
    assert line_numbers(part, "train") == line_numbers(whole, "train")


# --- bad rows ----------------------------------------------------------------------------------


def test_all_bad_rows_of_all_files_are_listed(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    empty = {"instruction": "a", "response": " "}
    first = write_jsonl(tmp_path / "first.jsonl", [GOOD, empty, "{", GOOD])
    second = tmp_path / "second.csv"
    second.write_text("instruction,response\na,b\nc\n")
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [GOOD, {"question": "a"}])
    config = make_config({**sources(first, second), "data.held_out.source": str(held_out)})

    assert refusal(prepare, config).splitlines() == [
        f"{first}:2: response is empty",
        f"{first}:3: is not JSON: Expecting property name enclosed in double quotes at column 2",
        f"{second}:3: has no value for column response",
        f"{held_out}:2: has columns question; expected messages, conversations, instruction with "
        "response (or output), prompt with completion, or text",
        f"4 bad row(s). {ADVICE}",
    ]


def test_twenty_bad_rows_are_listed_and_the_rest_counted(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD] + [{}] * 23)

    lines = refusal(prepare, make_config(sources(path))).splitlines()

    assert len(lines) == 22
    assert lines[0].startswith(f"{path}:2: has columns (none)")
    assert lines[19].startswith(f"{path}:21: has columns (none)")
    assert lines[20:] == ["... and 3 more", f"23 bad row(s). {ADVICE}"]


def test_bad_rows_are_reported_before_the_model_is_looked_for(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [{}])
    nowhere = {"model.id": str(tmp_path / "no-model")}

    assert refusal(prepare, make_config({**nowhere, **sources(bad)})).startswith(f"{bad}:1: ")
    with pytest.raises(ModelError, match="no-model"):
        prepare(make_config(nowhere))


@pytest.mark.parametrize("key", ["data.sources", "data.held_out"])
def test_a_missing_file_is_reported_before_the_model_is_looked_for(
    key: str, prepare: Prepare, make_config: MakeConfig, tmp_path: Path
) -> None:
    missing = {"source": str(tmp_path / "none.jsonl")}
    config = make_config(
        {
            "model.id": str(tmp_path / "no-model"),
            key: [missing] if key == "data.sources" else missing,
        }
    )

    assert refusal(prepare, config) == (
        f"data source {tmp_path}/none.jsonl: no such file; {WHAT_TO_GIVE}"
    )


def test_skipped_rows_are_counted_and_the_others_trained(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = {"instruction": "a", "response": "b<|im_end|>c"}
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, {"instruction": "a"}, stop, OTHER])
    no_answer = f"{path}:2: has an instruction but neither a response nor an output column"
    stops = (
        f"{path}:3: the answer's text holds '<|im_end|>', which ends a turn: "
        "the model would learn to stop in the middle"
    )

    with caplog.at_level(logging.WARNING, logger="llm_engineering"):
        prepared = prepare(make_config({**sources(path), "data.on_bad_rows": "skip"}))

    assert line_numbers(prepared, "train") == [1, 4]
    assert prepared.summary.bad_rows == [no_answer, stops]
    assert prepared.summary.sources[0].rows == 4
    assert prepared.summary.train.rows == 2
    # Each is told once: those found on reading, then those found on tokenizing.
    assert [record.message for record in caplog.records] == [
        f"skipping 1 bad row(s):\n{no_answer}",
        f"skipping 1 bad row(s):\n{stops}",
    ]


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_an_answer_that_holds_a_stop_token_is_a_bad_row(
    split: str, prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(
        tmp_path / "rows.jsonl", [GOOD, {"instruction": "a", "response": "b<|im_end|>c"}]
    )
    config = make_config(sources(path) if split == "train" else {"data.held_out.source": str(path)})

    assert refusal(prepare, config) == (
        f"{path}:2: the answer's text holds '<|im_end|>', which ends a turn: "
        f"the model would learn to stop in the middle\n1 bad row(s). {ADVICE}"
    )


def test_a_prompt_longer_than_the_model_reads_is_a_bad_row(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(
        tmp_path / "rows.jsonl", [{"instruction": "word " * 200, "response": "b"}, GOOD]
    )

    assert refusal(prepare, make_config(sources(path))) == (
        f"{path}:1: its prompt fills model.max_seq_length (128 tokens), so nothing of the answer "
        f"is trained; raise it, or shorten the row\n1 bad row(s). {ADVICE}"
    )


# --- splits that cannot be used ----------------------------------------------------------------


@pytest.mark.parametrize("rows", [[], [{}, {"instruction": "a"}]])
def test_nothing_left_to_train_on(
    rows: list[Any],
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [*rows, ""])
    second = write_jsonl(tmp_path / "second.jsonl", [*rows, ""])

    assert refusal(
        prepare, make_config({**sources(first, second), "data.on_bad_rows": "skip"})
    ) == (f"data.sources: no usable row is left to train on in {first}, {second}")


def test_nothing_left_to_evaluate_on(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "held_out.jsonl", [{}])
    config = make_config({"data.held_out.source": str(path), "data.on_bad_rows": "skip"})

    assert refusal(prepare, config) == (
        f"data.held_out: no usable row is left in {path}; "
        "the loss before and after could not be compared"
    )


def test_too_many_rows_that_would_be_cut(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    long = {"instruction": "a", "response": "word " * 200}
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, GOOD, long, GOOD])

    assert refusal(prepare, make_config(sources(path))) == (
        f"{path}:3: this row and 0 more of 4 (25.0%) are longer than model.max_seq_length and "
        "would lose their end; allowed by data.max_truncated_share: 5.0%. "
        "Raise model.max_seq_length, or that share"
    )


def test_rows_that_may_be_cut_are_cut_and_counted(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    long = {"instruction": "a", "response": "word " * 200}
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, GOOD, long, GOOD])

    prepared = prepare(make_config({**sources(path), "data.max_truncated_share": 0.25}))

    audit = prepared.summary.train
    assert (audit.truncated_rows, audit.longest_row, audit.stop_tokens) == (1, 128, 3)
    assert len(prepared.split("train")["input_ids"][2]) == 128


def test_a_template_whose_answers_do_not_end_is_refused(
    prepare: Prepare, make_config: MakeConfig, tmp_path: Path
) -> None:
    template = tmp_path / "endless.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    config = make_config({"model.chat_template": str(template)})

    message = refusal(prepare, config)

    assert message.startswith(
        f"{config.data.sources[0].source}:1: 0 stop tokens are trained for 1 answer(s): "
        "the last trained token is "
    )
    assert message.endswith(
        "the stop tokens are '<|im_end|>'. The model would not learn when to stop. "
        "Choose a model.chat_template that ends the assistant's turn with a stop token"
    )


# --- the digest --------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_tokens_wherever_the_files_lie(
    prepare: Prepare, make_config: MakeConfig, tmp_path: Path
) -> None:
    first = prepare(make_config())
    source = Path(make_config().data.sources[0].source)
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_bytes(source.read_bytes())

    again = prepare(make_config())
    moved = prepare(make_config(sources(elsewhere)))

    assert first.summary.digest == again.summary.digest == moved.summary.digest
    assert len(first.summary.digest) == 64


@pytest.mark.parametrize(
    "rows",
    [
        [GOOD, {**GOOD, "response": "Two!"}],
        [GOOD, {**GOOD, "instruction": "What is 1 + 2?"}],
        [{**GOOD, "response": "Two!"}, GOOD, GOOD],
        [GOOD],
    ],
)
def test_any_other_token_gives_another_digest(
    rows: list[Any],
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
) -> None:
    before = write_jsonl(tmp_path / "before.jsonl", [GOOD, GOOD])
    after = write_jsonl(tmp_path / "after.jsonl", rows)

    digests = {
        prepare(make_config(sources(before))).summary.digest,
        prepare(make_config(sources(after))).summary.digest,
        prepare(make_config({"data.held_out.source": str(before)})).summary.digest,
        prepare(make_config({"data.held_out.source": str(after)})).summary.digest,
    }

    assert len(digests) == 4


def test_other_labels_and_another_order_give_other_digests(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    other = {**GOOD, "response": "2"}
    forth = sources(write_jsonl(tmp_path / "forth.jsonl", [GOOD, other]))
    back = sources(write_jsonl(tmp_path / "back.jsonl", [other, GOOD]))

    digests = {
        prepare(make_config(forth)).summary.digest,
        prepare(make_config(back)).summary.digest,
        prepare(make_config({**forth, "data.loss_on": "everything"})).summary.digest,
    }

    assert len(digests) == 3


def test_a_row_that_changes_sides_changes_the_digest(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    def digest(train: int, held_out: int) -> str:
        first = write_jsonl(tmp_path / "first.jsonl", [GOOD] * train)
        second = write_jsonl(tmp_path / "second.jsonl", [GOOD] * held_out)
        config = make_config({**sources(first), "data.held_out.source": str(second)})
        return prepare(config).summary.digest

    assert digest(train=2, held_out=1) != digest(train=1, held_out=2)


# --- forms -------------------------------------------------------------------------------------

MESSAGES = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}


def test_the_form_of_each_source_is_stated(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    rows: dict[str, Any] = {
        "alpaca": GOOD,
        "prompt_completion": {"prompt": "a", "completion": "b"},
        "messages": MESSAGES,
        "sharegpt": {
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
        },
        "text": {"text": "Once upon a time"},
    }
    paths = [write_jsonl(tmp_path / f"{name}.jsonl", [row]) for name, row in rows.items()]

    prepared = prepare(make_config(sources(*paths)))

    assert [one.form for one in prepared.summary.sources] == [*rows, "alpaca"]
    assert [one.used for one in prepared.summary.sources] == [1, 1, 1, 1, 1, 12]


def test_a_row_of_another_form_than_its_source_is_a_bad_row(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, MESSAGES, OTHER])

    assert refusal(prepare, make_config(sources(path))).splitlines()[0] == (
        f"{path}:2: is of the form messages, and {path}:1 is alpaca; a source has one form: make "
        "two of it, or state its form"
    )


def test_a_stated_form_decides(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{**GOOD, **MESSAGES}])

    assert "has columns of two forms" in refusal(prepare, make_config(sources(path)))
    prepared = prepare(make_config(sources(path, form="messages")))
    assert json.loads(prepared.split("train")["messages"][0]) == MESSAGES["messages"]


def test_a_plain_text_is_trained_whole_and_ends(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    from llm_engineering.model.tokenizer import load_tokenizer

    path = write_jsonl(
        tmp_path / "rows.jsonl", [{"text": "Once upon a time"}, {"text": "w " * 300}]
    )
    config = make_config({**sources(path), "data.max_truncated_share": 0.5})

    prepared = prepare(config)
    first, second = prepared.split("train")["input_ids"]

    tokenizer = load_tokenizer(config.model)
    assert tokenizer.decode(first) == "Once upon a time<|im_end|>"
    assert len(second) == 128
    assert prepared.split("train")["labels"][:] == [first, second]
    assert prepared.summary.train.truncated_rows == 1


def test_only_the_last_turn_is_trained_where_asked(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    turns = [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]
    row = {"messages": [{"role": role, "content": text} for role, text in turns]}
    path = write_jsonl(tmp_path / "rows.jsonl", [row])

    prepared = prepare(make_config({**sources(path), "data.loss_on": "last_turn"}))

    example = prepared.summary.train.example
    assert [(piece.text, piece.trained) for piece in example][1:] == [("d<|im_end|>", True)]
    assert "Be brief." in example[0].text
    assert "b<|im_end|>" in example[0].text
    assert prepared.summary.train.stop_tokens == 1


# --- repeated rows, leaks ----------------------------------------------------------------------

SHOUTED = {"instruction": "WHAT  is 1 + 1?", "response": "two."}


def test_repeated_rows_are_counted_and_named_and_kept(
    prepare: Prepare,
    make_config: MakeConfig,
    write_jsonl: WriteJsonl,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, OTHER, SHOUTED, GOOD])

    with caplog.at_level(logging.WARNING, logger="llm_engineering"):
        prepared = prepare(make_config(sources(path)))

    assert prepared.summary.train.rows == 4
    assert prepared.summary.duplicates is not None
    assert prepared.summary.duplicates.first == [f"{path}:4 = {path}:1"]
    assert [record.message for record in caplog.records] == [
        "1 of 4 training rows repeat an earlier one: data.on_duplicates: drop leaves them out\n"
        f"{path}:4 = {path}:1"
    ]


def test_repeated_rows_are_dropped_or_refused_where_asked(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, OTHER, GOOD])

    prepared = prepare(make_config({**sources(path), "data.on_duplicates": "drop"}))

    assert line_numbers(prepared, "train") == [1, 2]
    assert (prepared.summary.duplicates.count, prepared.summary.duplicates.dropped) == (1, True)
    assert [one.used for one in prepared.summary.sources] == [2, 12]
    assert refusal(prepare, make_config({**sources(path), "data.on_duplicates": "error"})) == (
        f"{path}:3 = {path}:1\n1 of 3 training rows repeat an earlier one. Remove them: "
        "data.on_duplicates: drop leaves them out"
    )


@pytest.mark.parametrize("what", ["warn", "drop", "error"])
def test_rows_that_are_held_out_too_are_named_on_both_sides(
    what: str, prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [OTHER, GOOD])
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [SHOUTED])
    config = make_config(
        {**sources(train), "data.held_out.source": str(held_out), "data.on_leaks": what}
    )
    pair = f"{train}:2 = {held_out}:1"

    if what == "error":
        assert refusal(prepare, config).startswith(f"{pair}\n1 of 2 training rows are held out too")
        return
    prepared = prepare(config)
    assert prepared.summary.leaks is not None
    assert prepared.summary.leaks.first == [pair]
    assert prepared.summary.figures["leaked_rows"] == 1
    assert line_numbers(prepared, "train") == ([1] if what == "drop" else [1, 2])


def test_near_rows_count_where_asked(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    long = "Tell me at some length what the quick brown fox did when it met the lazy dog at night"
    rows = [{**GOOD, "instruction": text} for text in (long, long.replace("brown", "green"), "Hm?")]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    held_out = write_jsonl(
        tmp_path / "held_out.jsonl", [{**GOOD, "instruction": long.replace("night", "noon")}]
    )
    settings = {**sources(train), "data.held_out.source": str(held_out), "data.on_leaks": "drop"}

    assert prepare(make_config(settings)).summary.leaks.count == 0
    prepared = prepare(make_config({**settings, "data.near_duplicates": 0.7}))

    assert prepared.summary.duplicates is not None
    assert prepared.summary.duplicates.first == [f"{train}:2 ~ {train}:1"]
    assert prepared.summary.leaks is not None
    assert prepared.summary.leaks.first == [f"{train}:1 ~ {held_out}:1"]
    assert line_numbers(prepared, "train") == [2, 3]


# --- weights, groups ---------------------------------------------------------------------------


def test_weights_draw_a_share_of_each_source_again_and_again(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [{**GOOD, "response": str(n)} for n in range(40)])
    second = write_jsonl(
        tmp_path / "second.jsonl", [{**OTHER, "response": str(n)} for n in range(10)]
    )
    config = {
        "data.sources": [
            {"source": str(first), "weight": 0.6},
            {"source": str(second), "weight": 0.4},
        ]
    }

    prepared, again = prepare(make_config(config)), prepare(make_config(config))
    other = prepare(make_config({**config, "run.seed": 1}))

    assert [(one.rows, one.used) for one in prepared.summary.sources][:2] == [(40, 15), (10, 10)]
    assert prepared.summary.digest == again.summary.digest != other.summary.digest


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


# --- what is left on the disk ------------------------------------------------------------------


def test_refused_data_leaves_nothing_behind(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    long = {"instruction": "a", "response": "word " * 200}
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, long])

    refusal(prepare, make_config(sources(path)))

    assert list((tmp_path / "prepared" / "0").iterdir()) == []


def test_prepared_data_is_two_splits_and_a_summary(
    prepare: Prepare, make_config: MakeConfig
) -> None:
    folder = prepare(make_config()).folder

    assert sorted(path.name for path in folder.iterdir()) == ["held_out", "summary.json", "train"]
