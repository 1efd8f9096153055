"""Conversations as rows: what of them is compared, and that the labels are what is trained."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from llm_engineering.data.objective_rows import supervised_rows
from llm_engineering.data.objective_rows.supervised_rows import SupervisedRows
from llm_engineering.data.rows.message import Conversation, Message
from llm_engineering.data.rows.row_store import StoredRow
from llm_engineering.data.rows.shingles import Piece
from llm_engineering.data.tokens.prepared import PreparedConversation
from llm_engineering.data.tokens.tokenization import IGNORED, TokenizedRow

ROWS = SupervisedRows("last_turn")
ASKED = Conversation([Message("user", "What is  1 + 1?"), Message("assistant", "Two.")])
TOKENS = TokenizedRow([5, 6, 7], [IGNORED, 6, 7], turns=1, truncated=False, prompt_tokens=1, answer=1)  # type: ignore[list-item, arg-type]  # fmt: skip


def answered(text: str) -> Conversation:
    return Conversation([ASKED.messages[0], Message("assistant", text)])


def test_rows_repeat_where_they_are_equal_in_all() -> None:
    same, other = ROWS.keys(answered("Two.")), ROWS.keys(answered("2."))

    assert ROWS.keys(ASKED) == same
    assert other.equal != same.equal
    assert other.prompt == same.prompt
    assert same.equal != same.prompt


def test_what_is_asked_and_said_is_compared_without_its_spaces() -> None:
    assert ROWS.asked(ASKED) == [Piece("what is 1 + 1?")]
    assert ROWS.said(ASKED) == [Piece("what is 1 + 1? two.")]
    assert ROWS.answers_said(ASKED) == []


def test_a_row_is_read_and_stored_as_it_was() -> None:
    row = {"instruction": "What is  1 + 1?", "response": "Two."}
    unread: Any = set()

    (read,) = ROWS.read(row, ROWS.form_of(row), unread)
    assert read.to_dict() == ASKED.to_dict()
    assert ROWS.from_json(ROWS.to_json(ASKED)) == ASKED


def test_it_is_tokenized_by_the_runs_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        supervised_rows,
        "tokenize_conversations",
        lambda *arguments, **options: asked.append((arguments, options)) or [[TOKENS]],
    )
    given: dict[str, Any] = {
        "max_length": 9, "stop_ids": frozenset({2}), "inputs": "inputs", "notices": Counter(),
    }  # fmt: skip

    assert ROWS.tokenize([ASKED], "tokenizer", **given) == [[TOKENS]]  # type: ignore[arg-type]
    assert asked == [(([ASKED], "tokenizer"), {"loss_on": "last_turn", **given})]


@pytest.mark.parametrize(("loss_on", "refused"), [("last_turn", 1), ("everything", 0)])
def test_the_audit_knows_what_is_trained(loss_on: str, refused: int) -> None:
    class Tokenizer:
        added_tokens_decoder: Any = {}  # noqa: RUF012

        def decode(self, ids: list[int]) -> str:
            return str(ids)

    audit = SupervisedRows(loss_on).auditor("train", Tokenizer(), stop_ids=frozenset({9}))  # type: ignore[arg-type]
    audit.add("rows.jsonl:1", TOKENS)

    assert len(audit.refusals(1.0)) == refused  # no stop token is trained
    assert audit.audit().example[0].text == "[5]"


def test_what_is_trained_is_what_is_prepared() -> None:
    stored = StoredRow(3, "rows.jsonl:4", "as json", ASKED)  # type: ignore[arg-type]

    assert ROWS.shown(TOKENS) is TOKENS
    assert ROWS.trained(TOKENS) == [[5, 6, 7], [IGNORED, 6, 7]]
    assert ROWS.prepare(stored, TOKENS) == PreparedConversation(
        input_ids=[5, 6, 7], labels=[IGNORED, 6, 7], origin="rows.jsonl:4", conversation="as json",
        prompt_tokens=1, answer=1,
    )  # type: ignore[arg-type]  # fmt: skip
