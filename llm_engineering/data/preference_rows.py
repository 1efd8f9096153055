"""Preferences as rows of the preparation: pairs of answers, or judged answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.train import ObjectiveName
from llm_engineering.data.objective_rows import Keys
from llm_engineering.data.rows.conversations import UnusableRowError
from llm_engineering.data.rows.forms import Form
from llm_engineering.data.rows.preferences import Preference, to_preferences
from llm_engineering.data.rows.row_store import Spool, SpooledRow
from llm_engineering.data.select.duplicates import Pairs, near_rows, pieces, row_key, text_key
from llm_engineering.data.select.split import place_of
from llm_engineering.data.tokens.preferences import (
    PreferenceAuditor,
    TokenizedPreference,
    tokenize_preferences,
)
from llm_engineering.objectives import OBJECTIVES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


class PreferenceRows:
    """A ``RowKind``; an item holds the fields of a ``Preference``.

    Rows repeat where prompt, answers and label are equal. They contradict one another where the
    same two answers to a prompt are preferred the other way round, or the same answer is called
    good and bad. A training row leaks if its prompt is held out, whatever its answers: what is
    said of a prompt's other answers is no evidence on unseen ones. All answers to a prompt are
    held out together. A stored row has, beside the columns of ``SupervisedRows`` for the better
    answer, the prompt and each answer on their own, as trl's trainers take them.
    """

    may_contradict = True
    leak = "have a prompt that is held out too"

    def __init__(self, objective: ObjectiveName) -> None:
        """For an objective that learns from pairs or from judged answers."""
        self._objective = objective
        judged = OBJECTIVES[objective].learns_from == "judged answers"
        self._names = ("completion",) if judged else ("chosen", "rejected")
        self.columns = {
            "input_ids": "ids",
            "labels": "ids",
            "origin": "string",
            "messages": "string",
            "prompt_ids": "ids",
            **{f"{name}_ids": "ids" for name in self._names},
            **({"label": "bool"} if judged else {}),
        }

    def form_of(self, values: dict[str, Any]) -> Form | None:
        """None: pairs have no form to choose from."""
        return None

    def read(self, values: dict[str, Any], form: Form | None) -> list[dict[str, Any]]:
        """As ``to_preferences``: for kto a pair gives two items."""
        return [vars(one) for one in to_preferences(values, self._objective)]

    def keys(self, item: dict[str, Any], seed: int) -> Keys:
        """The exact one ends with the sense: which answer is better, or whether it is good."""
        prompt, texts = item["prompt"], list(item["answers"].values())
        sense = texts[0] < texts[1] if item["label"] is None else item["label"]
        return Keys(
            exact=row_key([prompt, sorted(texts)]) & ~1 | sense,
            place=place_of(prompt, seed),
            leaks=text_key(prompt),
        )

    def near_duplicates(self, spool: Spool, rows: NDArray[Any], threshold: float) -> Pairs:
        """Rows whose prompts are near, and whose answers are near in the same place.

        Several pairs to a long prompt are alike for the most part, and no repeats.
        """
        found = near_rows(spool, rows, threshold, _prompt_pieces)
        prompts = dict(zip(found.rows.tolist(), found.others.tolist(), strict=True))

        def placed(row: SpooledRow) -> set[str]:
            prompt, item = prompts.get(row.index, row.index), row.item
            return {
                f"{prompt} {item['label']} {name} {piece}"
                for name, text in item["answers"].items()
                for piece in pieces([{"content": text}])
            }

        return near_rows(spool, rows, threshold, placed)

    def near_leaks(
        self, spool: Spool, rows: NDArray[Any], threshold: float, held_out: NDArray[Any]
    ) -> Pairs:
        """Rows whose prompt is near one that is held out."""
        return near_rows(spool, rows, threshold, _prompt_pieces, held_out)

    def tokenize(
        self,
        items: Sequence[dict[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        stop_ids: frozenset[int],
    ) -> list[TokenizedPreference | UnusableRowError]:
        """As ``tokenize_preferences``."""
        return tokenize_preferences(
            [Preference(**item) for item in items],
            tokenizer,
            max_length=max_length,
            stop_ids=stop_ids,
        )

    def auditor(
        self, split: str, tokenizer: PreTrainedTokenizerBase, *, stop_ids: frozenset[int]
    ) -> PreferenceAuditor:
        """The label audit of every answer."""
        return PreferenceAuditor(split, tokenizer, stop_ids=stop_ids)

    def trained(self, tokens: TokenizedPreference) -> list[Any]:
        """Token ids of prompt and answers, and the label."""
        return [tokens.prompt_ids, tokens.answer_ids, tokens.label]

    def store(self, rows: Sequence[tuple[SpooledRow, TokenizedPreference]]) -> dict[str, list[Any]]:
        """By ``columns``."""
        better = self._names[0]
        labelled = [tokens.labelled(better) for _, tokens in rows]
        stored: dict[str, list[Any]] = {
            "input_ids": [row.input_ids for row in labelled],
            "labels": [row.labels for row in labelled],
            "origin": [spooled.origin for spooled, _ in rows],
            "messages": [_messages(spooled.item, better) for spooled, _ in rows],
            "prompt_ids": [tokens.prompt_ids for _, tokens in rows],
            "label": [tokens.label for _, tokens in rows],
        }
        for name in self._names:
            stored[f"{name}_ids"] = [tokens.answer_ids[name] for _, tokens in rows]
        return stored


def _prompt_pieces(row: SpooledRow) -> set[str]:
    return pieces(row.item["prompt"])


def _messages(item: dict[str, Any], better: str) -> str:
    answer = {"role": "assistant", "content": item["answers"][better]}
    return json.dumps([*item["prompt"], answer], ensure_ascii=False)
