"""Preferences as an objective's rows: pairs of answers, or judged answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.data import RowForm
from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.rows.keys import (
    RowKeys,
    answers_key,
    as_text,
    first_prompt,
    plain_text,
    prompt_key,
)
from llm_engineering.data.rows.preferences import (
    AnswerName,
    Preference,
    PreferenceDict,
    to_preferences,
)
from llm_engineering.data.rows.row_store import JsonText, StoredRow
from llm_engineering.data.rows.shingles import Piece
from llm_engineering.data.rows.unread import Unread
from llm_engineering.data.rows.unusable import UnusableRow
from llm_engineering.data.tokens.preferences import (
    PreferenceAuditor,
    TokenizedPreference,
    tokenize_preferences,
)
from llm_engineering.data.tokens.prepared import PreparedAnswer, PreparedPair
from llm_engineering.data.tokens.rendering import Notice
from llm_engineering.data.tokens.tokenization import TokenizedRow
from llm_engineering.model.chat_template import TemplateInputs
from llm_engineering.objectives import OBJECTIVES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KINDS: dict[tuple[AnswerName, bool | None], int] = {
    ("chosen", None): 1,
    ("rejected", None): 2,
    ("completion", True): 3,
    ("completion", False): 4,
}


class PreferenceRows:
    """``ObjectiveRows`` of preferences.

    Rows repeat where prompt, answers and label are equal. They contradict one another where the
    same two answers to a prompt are preferred the other way round, or the same answer is called
    good and bad. A training row leaks if its first prompt is held out, whatever its answers: what
    is said of a prompt's other answers is no evidence on unseen ones. All rows that share a first
    prompt are held out together.
    """

    judges_answers = True
    leak = "begin with a prompt that is held out too"

    def __init__(self, objective: ObjectiveName) -> None:
        """For an objective that learns from pairs or from judged answers."""
        self._objective = objective
        judged = OBJECTIVES[objective].learns_from == "judged answers"
        self._better: AnswerName = "completion" if judged else "chosen"
        self.columns: type[PreparedAnswer] | type[PreparedPair] = (
            PreparedAnswer if judged else PreparedPair
        )

    def form_of(self, values: Mapping[str, object]) -> None:
        """None: pairs have no form to choose from."""
        return None

    def read(
        self, values: Mapping[str, object], form: RowForm | None, unread: Unread
    ) -> list[Preference]:
        """As ``to_preferences``: for kto a pair gives two items."""
        return to_preferences(values, self._objective, unread)

    def to_json(self, item: Preference) -> PreferenceDict:
        """As ``Preference.to_dict``."""
        return item.to_dict()

    def from_json(self, values: Any) -> Preference:
        """As ``Preference.from_dict``."""
        return Preference.from_dict(values)

    def keys(self, item: Preference) -> RowKeys:
        """The equal one ends with the sense: which answer is better, or whether it is good."""
        answers = list(item.answers.values())
        sense = item.label
        if sense is None:
            first, second = map(as_text, answers)
            sense = first < second
        return RowKeys(
            equal=answers_key(item.prompt, answers) & ~1 | sense,
            prompt=prompt_key(item.prompt),
        )

    def asked(self, item: Preference) -> list[Piece]:
        """The first prompt."""
        return [Piece(plain_text(first_prompt(item.prompt)))]

    def said(self, item: Preference) -> list[Piece]:
        """The whole prompt."""
        return [Piece(plain_text(item.prompt.messages))]

    def answers_said(self, item: Preference) -> list[Piece]:
        """Each answer in its place: several pairs to a long prompt are alike for the most part."""
        return [
            Piece(plain_text([answer]), _KINDS[name, item.label])
            for name, answer in item.answers.items()
        ]

    def tokenize(
        self,
        items: Sequence[Preference],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        stop_ids: frozenset[int],
        inputs: TemplateInputs,
        notices: Counter[Notice],
    ) -> list[list[TokenizedPreference] | UnusableRow]:
        """As ``tokenize_preferences``."""
        found = tokenize_preferences(
            items,
            tokenizer,
            max_length=max_length,
            stop_ids=stop_ids,
            inputs=inputs,
            notices=notices,
        )
        return [one if isinstance(one, UnusableRow) else [one] for one in found]

    def auditor(
        self, split: str, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int]
    ) -> PreferenceAuditor:
        """The label audit of every answer."""
        return PreferenceAuditor(split, tokenizer, stop_ids=stop_ids)

    def shown(self, tokens: TokenizedPreference) -> TokenizedRow:
        """The prompt with the better answer."""
        row = tokens.labelled(self._better)
        return replace(row, truncated=tokens.truncated)

    def trained(self, tokens: TokenizedPreference) -> list[object]:
        """Token ids of prompt and answers, and the label."""
        return [tokens.prompt_ids, tokens.answer_ids, tokens.label]

    def prepare(
        self, row: StoredRow[Preference], tokens: TokenizedPreference
    ) -> PreparedPair | PreparedAnswer:
        """Prompt and answers on their own, beside the better answer's conversation."""
        better = tokens.labelled(self._better)
        whole = row.item.prompt.with_answer(row.item.answers[self._better])
        conversation = JsonText(json.dumps(whole.to_dict(), ensure_ascii=False))
        if tokens.label is None:
            return PreparedPair(
                input_ids=better.input_ids,
                labels=better.labels,
                origin=row.origin,
                conversation=conversation,
                prompt_ids=tokens.prompt_ids,
                chosen_ids=tokens.answer_ids["chosen"],
                rejected_ids=tokens.answer_ids["rejected"],
            )
        return PreparedAnswer(
            input_ids=better.input_ids,
            labels=better.labels,
            origin=row.origin,
            conversation=conversation,
            prompt_ids=tokens.prompt_ids,
            completion_ids=tokens.answer_ids["completion"],
            label=tokens.label,
        )
