"""Held-out rows that a version was trained on: its loss on them is no evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator

from llm_engineering.data.dataset import PreparedDataset
from llm_engineering.data.rows.keys import prompt_key
from llm_engineering.data.rows.message import Conversation
from llm_engineering.errors import RegistryError


def learned_rows(version: PreparedDataset, candidate: PreparedDataset) -> int:
    """How many of a candidate's held-out rows begin with a prompt that a version was trained on.

    Rows that the candidate was trained on too, which ``data.on_leaks`` lets pass, do not count: both
    have learned them.

    Args:
        version: The data that the version was made of.
        candidate: The data of the candidate.

    Raises:
        RegistryError: The version's data was stored by a release that kept no conversations.
    """
    held_out = list(_prompts(candidate, "held_out"))
    fresh = set(held_out)
    fresh.difference_update(_prompts(candidate, "train"))
    learned = fresh.intersection(_prompts(version, "train"))
    return sum(prompt in learned for prompt in held_out)


def _prompts(dataset: PreparedDataset, split: str) -> Iterator[int]:
    rows = dataset.split(split)
    if "conversation" not in rows.column_names:
        raise RegistryError(
            "its training data was stored by an earlier release of this project, so whether it was "
            "trained on these held-out rows is not known; promote by hand (--promote)"
        )
    for batch in rows.select_columns(["conversation"]).iter(1000):
        for text in batch["conversation"]:
            yield prompt_key(Conversation.from_dict(json.loads(text)))
