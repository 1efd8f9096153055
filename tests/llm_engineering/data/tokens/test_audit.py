"""The label audit: what it counts, and the data it refuses."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.data.tokens.audit import LabelAudit, LabelAuditor, LabelledPiece
from llm_engineering.data.tokens.tokenization import IGNORED, TokenizedRow


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from llm_engineering.model.tokenizer import load_tokenizer

    return load_tokenizer(ModelSettings(id=str(tiny_model)))


def make_row(
    tokenizer: Any, *pieces: tuple[str, bool], turns: int = 1, truncated: bool = False
) -> TokenizedRow:
    """A row of texts, each trained (True) or only read (False)."""
    input_ids: list[int] = []
    labels: list[int] = []
    for text, trained in pieces:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        input_ids += tokens
        labels += tokens if trained else [IGNORED] * len(tokens)
    return TokenizedRow(input_ids, labels, turns, truncated)


def auditor(rows: list[TokenizedRow], tokenizer: Any, **settings: Any) -> LabelAuditor:
    stop_ids = frozenset({tokenizer.eos_token_id})
    found = LabelAuditor(tokenizer, **{"stop_ids": stop_ids, "loss_on": "completion", **settings})
    for number, row in enumerate(rows, start=1):
        found.add(f"rows.jsonl:{number}", row)
    return found


def audit(
    rows: list[TokenizedRow], tokenizer: Any, max_truncated_share: float = 0.05, **settings: Any
) -> LabelAudit:
    found = auditor(rows, tokenizer, **settings)
    assert found.refusals(max_truncated_share) == []
    return found.audit()


def refusal(
    rows: list[TokenizedRow], tokenizer: Any, max_truncated_share: float = 0.05, **settings: Any
) -> str:
    return auditor(rows, tokenizer, **settings).refusals(max_truncated_share)[0]


def test_it_counts_rows_tokens_and_stops(tokenizer: Any) -> None:
    rows = [
        make_row(tokenizer, ("abc", False), ("x<|im_end|>", True)),
        make_row(
            tokenizer,
            ("<|im_start|>", False),
            ("x<|im_end|>", True),
            ("<|im_start|>", False),
            ("x<|im_end|>", True),
            turns=2,
        ),
    ]
    first, second = (len(row.input_ids) for row in rows)
    assert second == 6

    found = audit(rows, tokenizer)

    assert (found.rows, found.tokens) == (2, first + second)
    assert found.trained_tokens == 2 + 4
    assert found.stop_tokens == 3
    assert found.longest_row == max(first, second)
    assert found.truncated_rows == 0


def test_it_counts_rows_by_their_length(tokenizer: Any) -> None:
    lengths = [2, 3, 49, 49, 50]
    rows = [make_row(tokenizer, ("a" * (n - 1), False), ("<|im_end|>", True)) for n in lengths]
    assert [len(row.input_ids) for row in rows] == lengths

    found = audit(rows, tokenizer)

    # 50 tokens in at most 24 bins: of 3 tokens, the last holding 49 to 51
    assert found.length_bin == 3
    assert found.rows_by_length == [2] + [0] * 15 + [3]


def test_it_shows_the_first_row_as_the_model_sees_it(tokenizer: Any) -> None:
    pieces = (
        ("Q: Größe?", False),
        ("A<|im_end|>", True),
        ("\nQ: more", False),
        ("B<|im_end|>", True),
    )
    rows = [make_row(tokenizer, *pieces, turns=2), make_row(tokenizer, ("z<|im_end|>", True))]

    found = audit(rows, tokenizer)

    assert found.example_origin == "rows.jsonl:1"
    assert found.example == [LabelledPiece(text=text, trained=trained) for text, trained in pieces]


def test_a_piece_of_one_token_is_shown_apart(tokenizer: Any) -> None:
    pieces = (("<|im_start|>", False), ("<|im_end|>", True))

    found = audit([make_row(tokenizer, *pieces)], tokenizer)

    assert found.example == [LabelledPiece(text=text, trained=trained) for text, trained in pieces]


def test_a_split_without_rows(tokenizer: Any) -> None:
    found = audit([], tokenizer)

    assert (found.rows, found.tokens, found.longest_row, found.length_bin) == (0, 0, 0, 1)
    assert (found.rows_by_length, found.example_origin, found.example) == ([], "", [])


@pytest.mark.parametrize("cut", range(5))
def test_parts_that_are_merged_count_as_the_whole(cut: int, tokenizer: Any) -> None:
    """As processes count a part of the rows each, and send it to the one that goes on."""
    rows = [
        make_row(tokenizer, ("Q", False), ("one<|im_end|>", True)),
        make_row(tokenizer, ("only read", False), truncated=True),
        make_row(tokenizer, ("cut off", True), truncated=True),
        make_row(tokenizer, ("one<|im_end|>", True), turns=2),
    ]
    whole = auditor(rows, tokenizer)
    merged, later = auditor(rows[:cut], tokenizer), auditor([], tokenizer)
    for number, row in enumerate(rows[cut:], start=cut + 1):
        later.add(f"rows.jsonl:{number}", row)

    sent = pickle.loads(pickle.dumps(later))
    merged.merge(sent)

    assert "_tokenizer" in vars(sent)
    assert vars(sent)["_tokenizer"] is None
    assert merged.audit() == whole.audit()
    assert merged.refusals(0.4) == whole.refusals(0.4)
    assert len(whole.refusals(0.4)) == 2


def test_a_row_without_a_trained_token_is_refused(tokenizer: Any) -> None:
    good = make_row(tokenizer, ("A<|im_end|>", True))

    assert refusal([good, make_row(tokenizer, ("only read", False))], tokenizer) == (
        "rows.jsonl:2: no token of this row is trained: every label is masked"
    )


@pytest.mark.parametrize(
    ("answer", "turns", "stops", "last"),
    [("Two.", 1, 0, "'.'"), ("Two.<|im_end|>", 2, 1, "'<|im_end|>'")],
)
def test_an_answer_that_does_not_learn_to_end_is_refused(
    answer: str, turns: int, stops: int, last: str, tokenizer: Any
) -> None:
    row = make_row(tokenizer, ("Q", False), (answer, True), turns=turns)

    assert refusal([row], tokenizer) == (
        f"rows.jsonl:1: {stops} stop tokens are trained for {turns} answer(s): the last trained "
        f"token is {last}, the stop tokens are '<|im_end|>'. The model would not learn when to "
        "stop: choose a model.chat_template that ends the assistant's turn with a stop token"
    )


def test_all_stop_tokens_are_named(tokenizer: Any) -> None:
    stop_ids = frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id})

    assert "the stop tokens are '<|endoftext|>', '<|im_end|>'." in refusal(
        [make_row(tokenizer, ("Q", False), ("Two.", True))], tokenizer, stop_ids=stop_ids
    )


def test_a_turn_that_ends_with_another_token_names_it(tokenizer: Any) -> None:
    """A base model's EOS is not that of ChatML."""
    row = make_row(tokenizer, ("Q", False), ("Two.<|im_end|>\n", True))

    assert "set model.eos_token: '<|im_end|>', which ends it here; or choose" in refusal(
        [row], tokenizer, stop_ids=frozenset({tokenizer.pad_token_id})
    )


def test_any_of_several_stop_tokens_ends_an_answer(tokenizer: Any) -> None:
    stop_ids = frozenset({tokenizer.eos_token_id, tokenizer.pad_token_id})
    rows = [
        make_row(tokenizer, ("A<|im_end|>", True)),
        make_row(tokenizer, ("A<|endoftext|>", True)),
    ]

    assert audit(rows, tokenizer, stop_ids=stop_ids).stop_tokens == 2


def test_loss_on_everything_does_not_ask_for_one_stop_an_answer(tokenizer: Any) -> None:
    row = make_row(tokenizer, ("Q<|im_end|>A<|im_end|>", True))

    assert audit([row], tokenizer, loss_on="everything").stop_tokens == 2


def test_a_row_that_was_cut_need_not_end(tokenizer: Any) -> None:
    rows = [make_row(tokenizer, ("A", True), truncated=True)]

    found = audit(rows, tokenizer, max_truncated_share=1.0)

    assert (found.truncated_rows, found.stop_tokens) == (1, 0)


@pytest.mark.parametrize("share", [0.25, 0.3, 1.0])
def test_as_many_cut_rows_as_allowed(share: float, tokenizer: Any) -> None:
    rows = [make_row(tokenizer, ("A<|im_end|>", True)) for _ in range(3)]
    rows.append(make_row(tokenizer, ("A", True), truncated=True))

    assert audit(rows, tokenizer, max_truncated_share=share).truncated_rows == 1


@pytest.mark.parametrize("share", [0.0, 0.24])
def test_more_cut_rows_than_allowed_are_refused(share: float, tokenizer: Any) -> None:
    rows = [make_row(tokenizer, ("A<|im_end|>", True)) for _ in range(6)]
    rows[1:1] = [make_row(tokenizer, ("A", True), truncated=True) for _ in range(2)]

    assert refusal(rows, tokenizer, max_truncated_share=share) == (
        "rows.jsonl:2: this row and 1 more of 8 (25.0%) are longer than model.max_seq_length and "
        f"would lose their end; allowed by data.max_truncated_share: {share:.1%}. "
        "Raise model.max_seq_length, or that share"
    )
