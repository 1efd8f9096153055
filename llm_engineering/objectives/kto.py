"""KTO: whether an answer is good, measured against a reference model (arXiv 2402.01306)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llm_engineering.objectives.objective import (
    MISMATCHED,
    Answers,
    Ingredients,
    Judgement,
    LearnsFrom,
    Objective,
    mismatched,
)
from llm_engineering.objectives.preference_trainer import preference_trainer
from llm_engineering.objectives.reference_model import (
    compute_reference,
    rewards_against_reference,
)
from llm_engineering.objectives.router_loss import router_loss_arguments

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer


class Kto(Objective):
    """``1 - sigmoid`` of a signed reward; the default rate is the upper end of its paper's range.

    An answer's reward counts from a reference point: the policy's divergence from its reference
    model, estimated from prompts with other prompts' answers (section 4.1). It is estimated over all
    rows of an optimizer step, so that how the step is split teaches nothing else; trl's is that of a
    micro-batch.
    """

    name: ClassVar[str] = "kto"
    title: ClassVar[str] = "whether an answer is good, by KTO"
    learning_rate: ClassVar[float] = 5e-6
    learns_from: ClassVar[LearnsFrom] = "judged answers"
    has_reference_point: ClassVar[bool] = True
    definition: ClassVar[int] = 2
    makes_all_logits: ClassVar[bool] = False  # trl's fused head goes through them in tiles
    unit: ClassVar[str] = "per answer"

    def make_trainer(self, ingredients: Ingredients) -> Trainer:
        """trl's, on rows that are tokens already and carry another prompt's answer."""
        from trl import KTOConfig

        arguments = ingredients.arguments
        rows = ingredients.rows.select_columns(["prompt_ids", "completion_ids", "label"])
        rows = rows.add_column("KL_completion_ids", mismatched(rows["completion_ids"][:]))
        trainer = _trainer_class(self)(
            model=ingredients.model,
            args=KTOConfig(
                **arguments,
                **router_loss_arguments(ingredients.model),
                beta=ingredients.beta,
                max_length=None,
            ),
            processing_class=ingredients.tokenizer,
            train_dataset=rows,
        )
        # trl would go through the rows in one order each epoch, since it pairs neighbours of a batch.
        # Here each row carries its other answer.
        trainer.args.train_sampling_strategy = "random"

        def ask(batch: Any) -> dict[str, Tensor]:
            return {
                f"ref_{kind}logps": trainer.log_probabilities(trainer.model, batch, kind)
                for kind in ("", "KL_")
            }

        compute_reference(trainer, ask)
        return trainer

    def judge(self, answers: Answers, beta: float) -> Judgement:
        """An answer's loss is ``1 - sigmoid(±(reward - reference point))`` (equation 8)."""
        import torch

        rewards = rewards_against_reference(answers, beta)
        if answers.reference_point is None:  # of these very rows
            point = rewards.pop(MISMATCHED).mean()
        else:
            point = beta * answers.reference_point
        away = rewards["completion"] - point.clamp(min=0)
        return Judgement(torch.sigmoid(torch.where(answers.labels, -away, away)), rewards)


def _trainer_class(kto: Kto) -> type:
    """trl's trainer with one reference point for an optimizer step."""
    import torch
    from trl import KTOTrainer

    class KtoTrainer(preference_trainer(KTOTrainer, kto)):  # type: ignore[misc]
        _reference_point: Any = None

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, items = super().get_batch_samples(*args, **kwargs)
            if batches:
                self._reference_point = self._estimate_reference_point(batches)
            return batches, items

        @torch.no_grad()
        def _estimate_reference_point(self, batches: list[Any]) -> Any:
            total = torch.zeros((), device=self.accelerator.device)
            with self.accelerator.autocast():
                for batch in batches:
                    batch = {name: part.to(total.device) for name, part in batch.items()}
                    apart = self.log_probabilities(self.model, batch, "KL_") - batch["ref_KL_logps"]
                    total += torch.where(self.is_taught(batch), apart, 0.0).sum()
            return self.accelerator.reduce(total, "sum") / self._rows_in_step

        def answers(self, model: Any, batch: dict[str, Any]) -> Answers:
            return Answers(
                log_probabilities={"completion": self.log_probabilities(model, batch)},
                tokens={"completion": batch["completion_mask"].sum(-1)},
                reference={"completion": batch["ref_logps"]},
                labels=batch["label"].bool(),
                reference_point=self._reference_point,
            )

    return KtoTrainer
