"""What an objective is: the facts that planning, data and evaluation ask for, its loss, its trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import datasets
    from torch import Tensor
    from transformers import Trainer

MISMATCHED = "mismatched"
"""Name of the answers of other prompts, one a row, where an objective has a reference point."""

_BLANK_TOKENS = 2  # one to read, one to predict
_IGNORED = -100  # the label that PyTorch's cross-entropy passes over

LearnsFrom = Literal["conversations", "pairs", "judged answers"]
"""What a row holds: a conversation, two answers of which one is better, or one that is good or bad."""


@dataclass(frozen=True)
class Ingredients:
    """What a trainer is made of."""

    model: Any
    tokenizer: Any
    rows: datasets.Dataset
    """The train split that was prepared for the objective."""
    arguments: Mapping[str, Any]
    """Arguments that all trainers share (``transformers.TrainingArguments``)."""
    beta: float
    """``train.beta``."""
    packing: bool
    max_length: int
    """Tokens of a packed row, and of the longest one."""
    sft_trainer: type
    """trl's trainer for conversations, or what the backend needs in its place."""


@dataclass(frozen=True)
class Answers:
    """What a model says of rows' answers, in training and of held-out rows; tensors ``(rows,)``."""

    log_probabilities: Mapping[str, Tensor]
    """Of each whole answer, in nats, by the answer's name."""
    tokens: Mapping[str, Tensor]
    """Of each answer."""
    reference: Mapping[str, Tensor]
    """As ``log_probabilities``, of the reference model; empty where an objective has none."""
    labels: Tensor | None = None
    """Whether each answer is good; None for pairs."""
    reference_point: Tensor | None = None
    """Mean of ``log p - log p of the reference model`` of ``MISMATCHED``, where it is not of these rows
    alone; a scalar."""


@dataclass(frozen=True)
class Judgement:
    """An objective's view of answers; tensors ``(rows,)``."""

    losses: Tensor
    rewards: dict[str, Tensor]
    """By the answer's name."""


class Objective:
    """One way to learn; each has a file of its own beside this one."""

    name: ClassVar[str]
    """As in ``train.objective``."""
    title: ClassVar[str]
    """What is learned, to be read after "learns"."""
    learning_rate: ClassVar[float]
    """Peak learning rate, where the configuration gives none."""
    learns_from: ClassVar[LearnsFrom]
    sequences_per_row: ClassVar[int] = 1
    """Sequences that one row puts through the model."""
    makes_all_logits: ClassVar[bool] = True
    """Whether the loss makes the logits of all tokens at once, rather than in chunks."""
    can_be_sharded: ClassVar[bool] = False
    """Whether it can be learned where each process holds a part of the weights."""
    has_reference_model: ClassVar[bool] = True
    """Whether the policy is compared with what it was before training."""
    has_reference_point: ClassVar[bool] = False
    """Whether rewards count from what the policy makes of other prompts' answers (``MISMATCHED``)."""
    definition: ClassVar[int] = 1
    """Raised when its loss changes: from then on no checkpoint of before is gone on from."""
    unit: ClassVar[str]
    """What the held-out loss is counted by."""

    @property
    def is_preference(self) -> bool:
        """Whether it learns which answers are better, rather than the answers themselves."""
        return self.learns_from != "conversations"

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of a row's answers that are judged, the better one first; none of a conversation."""
        by_rows: dict[LearnsFrom, tuple[str, ...]] = {
            "conversations": (),
            "pairs": ("chosen", "rejected"),
            "judged answers": ("completion",),
        }
        return by_rows[self.learns_from]

    def tokens_read(self, row: Mapping[str, Any]) -> int:
        """Tokens that a row of the train split puts through the model."""
        if not self.is_preference:
            return len(row["input_ids"])
        if not row[f"{self.answers[0]}_ids"]:  # of a blank row
            return 0
        return sum(len(row["prompt_ids"]) + len(row[f"{name}_ids"]) for name in self.answers)

    def blank_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What teaches nothing, with the columns of a row of the train split: two tokens, no answer."""
        blank: dict[str, Any] = {
            name: value[:_BLANK_TOKENS] if isinstance(value, list) else value
            for name, value in row.items()
        }
        if self.is_preference:
            answers = [name for name in row if name.endswith("_ids") and name != "prompt_ids"]
            return blank | {name: [] for name in answers}
        if "seq_lengths" in row:  # of a packed row's documents
            blank["seq_lengths"] = [_BLANK_TOKENS]
        return blank | {"labels": [_IGNORED] * _BLANK_TOKENS}

    def make_trainer(self, ingredients: Ingredients) -> Trainer:
        """trl's trainer for it, ready to train."""
        raise NotImplementedError

    def judge(self, answers: Answers, beta: float) -> Judgement:
        """Loss and rewards of answers; of preferences alone.

        Training and held-out rows are judged by it; nothing in it may wait for the device.

        Args:
            answers: Of a micro-batch, or of all held-out rows.
            beta: ``train.beta``.
        """
        raise NotImplementedError


def mismatched(answers: Sequence[list[int]]) -> list[list[int]]:
    """For each row the answer of another, half of all rows away.

    From such pairs KTO's reference point is estimated (arXiv 2402.01306, section 4.1). A neighbour's
    answer may be to the same prompt: a pair of answers becomes two rows.
    """
    half = len(answers) // 2
    return [*answers[half:], *answers[:half]]
