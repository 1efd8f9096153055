"""What an objective is: the facts that planning, data and evaluation ask for, its loss, its trainer."""

from __future__ import annotations

from typing import ClassVar, Literal

LearnsFrom = Literal["conversations", "pairs", "judged answers"]
"""What a row holds: a conversation, two answers of which one is better, or one that is good or bad."""


class Objective:
    """One way to learn; each has a file of its own beside this one."""

    name: ClassVar[str]
    """As in ``train.objective``."""
    learning_rate: ClassVar[float]
    """Peak learning rate, where the configuration gives none."""
    learns_from: ClassVar[LearnsFrom]
    sequences_per_row: ClassVar[int] = 1
    """Sequences that one row puts through the model."""
    least_micro_batch: ClassVar[int] = 1
    """Rows that one forward pass needs at least; above 1, what is learned hangs on the micro-batch."""
    makes_all_logits: ClassVar[bool] = True
    """Whether the loss makes the logits of all tokens at once, rather than in chunks."""
    has_reference_model: ClassVar[bool] = True
    """Whether the policy is compared with what it was before training."""
    unit: ClassVar[str]
    """What the held-out loss is counted by."""

    @property
    def is_preference(self) -> bool:
        """Whether it learns which answers are better, rather than the answers themselves."""
        return self.learns_from != "conversations"
