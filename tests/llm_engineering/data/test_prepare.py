"""Preparing the data as a whole: from files to two audited splits, or to a list of bad rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.read.files import WHAT_TO_GIVE
from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.errors import DataError, ModelError

MakeConfig = Callable[..., FinetuningConfig]
WriteJsonl = Callable[[Path, Sequence[Any]], Path]
Prepare = Callable[[FinetuningConfig], PreparedDataset]

GOOD = {"instruction": "What is 1 + 1?", "response": "Two."}
OTHER = {"instruction": "What is 2 + 2?", "response": "Four."}
ADVICE = "Mend them, or set data.on_bad_rows: skip to train without them (the report counts them)"


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
        assert json.loads(row["conversation"])["messages"] == [
            {"role": "user", "content": stated["instruction"]},
            {"role": "assistant", "content": stated["response"]},
        ]


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


# --- bad rows ----------------------------------------------------------------------------------


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


def test_of_many_bad_rows_the_first_are_listed_and_all_counted(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [GOOD, *[{"instruction": "a"}] * 1200])

    summary = prepare(make_config({**sources(path), "data.on_bad_rows": "skip"})).summary

    assert len(summary.bad_rows) == 1000
    assert summary.bad_rows[-1].startswith(f"{path}:1001: ")
    assert (summary.bad_rows_unlisted, summary.bad_row_count) == (200, 1200)


def test_an_example_of_each_source_and_one_that_was_cut(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    long = {"instruction": "a", "response": "word " * 200}
    unusable = {"instruction": "word " * 200, "response": "b"}
    first = write_jsonl(tmp_path / "first.jsonl", [GOOD, OTHER])
    second = write_jsonl(tmp_path / "second.jsonl", [unusable, OTHER, long, long])
    settings = {"data.max_truncated_share": 0.5, "data.on_bad_rows": "skip"}

    examples = prepare(make_config({**sources(first, second), **settings})).summary.examples

    assert [(row.origin, row.cut) for row in examples] == [
        (f"{first}:1", False),
        (f"{second}:2", False),
        (f"{second}:3", True),
    ]
    assert [piece.text for piece in examples[1].pieces if piece.trained] == ["Four.<|im_end|>"]


# --- splits that cannot be used ----------------------------------------------------------------


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
        "{% for m in messages %}{{ m.role }}:\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    )
    config = make_config({"model.chat_template": str(template)})

    message = refusal(prepare, config)

    assert message.startswith(
        f"{config.data.sources[0].source}:1: 0 stop tokens are trained for 1 answer(s): "
        "the last trained token is "
    )
    assert message.endswith(
        "the stop tokens are '<|im_end|>'. The model would not learn when to stop: "
        "choose a model.chat_template that ends the assistant's turn with a stop token"
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


# --- what the chat template is given, and what it makes of the rows ----------------------------


def test_variables_of_the_template_are_given_and_kept(
    prepare: Prepare, make_config: MakeConfig, tmp_path: Path
) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(
        "{{ mood | default('cross') }}{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    values = {"model.chat_template": str(template)}

    cross = prepare(make_config(values)).summary
    calm = prepare(make_config({**values, "model.chat_template_kwargs": {"mood": "calm"}})).summary

    assert calm.template_inputs.variables == {"mood": "calm"}
    assert calm.train.example[0].text.startswith("calm<|im_start|>")
    assert cross.train.example[0].text.startswith("cross<|im_start|>")
    assert calm.digest != cross.digest


def test_a_conversation_can_give_several_rows_and_that_is_said(
    prepare: Prepare, make_config: MakeConfig, write_jsonl: WriteJsonl, tmp_path: Path
) -> None:
    template = tmp_path / "forgetful.jinja"
    template.write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}:"
        "{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
    )
    texts = ["Why?", "So.", "Sure?", "Yes.", "And?", "No."]
    chat = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    path = write_jsonl(tmp_path / "chats.jsonl", [{"messages": chat}, {"messages": chat[:2]}])

    prepared = prepare(make_config({**sources(path), "model.chat_template": str(template)}))

    summary = prepared.summary
    assert (summary.sources[0].rows, summary.sources[0].used) == (2, 2)
    assert (summary.train.rows, summary.train.stop_tokens) == (4, 4)
    assert prepared.split("train")["answer"] == [1, 3, 5, 1]
    assert prepared.split("train")["origin"] == [f"{path}:1"] * 3 + [f"{path}:2"]
    unrolled, empty = sorted(summary.notices, key=lambda notice: "thought" in notice)
    assert unrolled.startswith("2 training rows more than conversations: the chat template writes")
    held_out = summary.held_out.rows
    assert empty.startswith(f"{4 + held_out} answers are trained with thinking that has no thought")


def test_a_base_models_end_is_not_the_templates(
    prepare: Prepare, make_config: MakeConfig, tiny_model: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    (base / "generation_config.json").unlink()
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<|endoftext|>"}))
    values = {"model.id": str(base)}

    assert "set model.eos_token: '<|im_end|>', which ends it here" in refusal(
        prepare, make_config(values)
    )

    audit = prepare(make_config({**values, "model.eos_token": "<|im_end|>"})).summary.train
    assert audit.stop_tokens == audit.rows
