"""Supervised fine-tuning: the answers are learned, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llm_engineering.objectives.objective import Ingredients, LearnsFrom, Objective
from llm_engineering.objectives.router_loss import router_loss_arguments

if TYPE_CHECKING:
    from transformers import Trainer


class Sft(Objective):
    """Mean negative log-likelihood of the labelled tokens; the default rate is the handbook's."""

    name: ClassVar[str] = "sft"
    title: ClassVar[str] = "answers, by supervised fine-tuning"
    learning_rate: ClassVar[float] = 3e-4
    learns_from: ClassVar[LearnsFrom] = "conversations"
    makes_all_logits: ClassVar[bool] = False
    can_be_sharded: ClassVar[bool] = True
    has_reference_model: ClassVar[bool] = False
    unit: ClassVar[str] = "nats per token"

    def make_trainer(self, ingredients: Ingredients) -> Trainer:
        """The backend's own, on rows that are tokens already."""
        from trl import SFTConfig

        packing = ingredients.packing
        rows = ingredients.rows.select_columns(["input_ids", "labels"])
        # Said to unsloth, which takes the word of whoever cut the rows. Else it goes over all of them,
        # and pads micro-batches where it would line their rows up (varlen_attention.py).
        rows._unsloth_truncated_to = ingredients.max_length
        return ingredients.sft_trainer(
            model=ingredients.model,
            processing_class=ingredients.tokenizer,
            args=SFTConfig(
                **ingredients.arguments,
                **router_loss_arguments(ingredients.model),
                packing=packing,
                max_length=ingredients.max_length,
                # Matrix kernels for lengths that are no multiple of 8 are slower (NOTES.md).
                pad_to_multiple_of=8 if packing else None,
                # trl would go over rows that are cut already, and copy all of them.
                dataset_kwargs=None if packing else {"skip_prepare_dataset": True},
            ),
            train_dataset=rows,
        )
