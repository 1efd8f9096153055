"""Supervised fine-tuning: the answers are learned, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llm_engineering.objectives.objective import Ingredients, LearnsFrom, Objective
from llm_engineering.objectives.router_loss import router_loss_arguments

if TYPE_CHECKING:
    from torch import Tensor
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
        trainer: Trainer = ingredients.sft_trainer(
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
        # Some classes of transformers deny it (Qwen's that see). A step's loss would then be the mean of
        # its micro-batches' means, in which a token of a short row weighs more.
        trainer.model_accepts_loss_kwargs = True
        return trainer


def trainer_by_pieces(trainer: type) -> type:
    """A trainer whose loss is by trl's fused head where the model's own code would make all logits.

    Those of Gemma 3's 262,208 tokens are 12 GB in a micro-batch of 8,192. unsloth rewrites the code of
    most families, and not of all.

    Args:
        trainer: trl's, patched by unsloth.
    """

    class TrainerByPieces(trainer):
        _router_losses: Sequence[Tensor] = ()

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if return_outputs or num_items_in_batch is None or not _is_transformers_own(self.model):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            found = model(**inputs, fused_lm_head=True)
            loss = -found.log_probs.sum() / num_items_in_batch
            if self.args.average_tokens_across_devices:  # of all ranks
                loss = loss * self.accelerator.num_processes
            if self.aux_loss_enabled:
                self._router_losses = [*self._router_losses, found.aux_loss.detach()]
                share = found.aux_loss / self.current_gradient_accumulation_steps
                loss = loss + self.router_aux_loss_coef * share
            return loss

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if self._router_losses:
                logs["aux_loss"] = sum(one.item() for one in self._router_losses) / len(
                    self._router_losses
                )
                self._router_losses = ()
            super().log(logs, *args, **kwargs)

    return TrainerByPieces


def _is_transformers_own(model: Any) -> bool:
    return type(model.get_base_model()).forward.__module__.startswith("transformers.")
