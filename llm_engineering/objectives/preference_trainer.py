"""The trainer of a preference objective: trl's, with the loss that the objective's ``judge`` has.

Of trl's trainers come the batches, the fused head, which makes no logits of all tokens at once, and
the pass of the reference model. Their own ``compute_loss`` is passed over for three reasons: held-out
rows would be judged by another definition than what is trained; it is a mean over a micro-batch,
where every row of an optimizer step should weigh the same, whatever the split and the number of ranks;
and for its log it waits for the device some twenty times in each forward pass. Here the log's numbers
stay on the device until a step is logged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llm_engineering.objectives.objective import Answers, Ingredients, Judgement, Objective
from llm_engineering.objectives.reference_model import compute_reference, forget_trls_copy
from llm_engineering.objectives.router_loss import router_loss_arguments

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Trainer

_IGNORED = -100  # the label that trl's fused head passes over


def pair_trainer(objective: Objective, ingredients: Ingredients) -> Trainer:
    """The trainer of an objective that learns from pairs, ready to train."""
    from trl import DPOConfig, DPOTrainer

    class PairTrainer(preference_trainer(DPOTrainer, objective)):  # type: ignore[misc]
        def answers(self, model: Any, batch: dict[str, Any]) -> Answers:
            log_probabilities = self.log_probabilities(model, batch)
            return Answers(
                log_probabilities=_by_name(log_probabilities),
                tokens=_by_name(batch["completion_mask"].sum(-1)),
                reference={
                    name: batch[f"ref_{name}_logps"]
                    for name in objective.answers
                    if objective.has_reference_model
                },
            )

    columns = ["prompt_ids", "chosen_ids", "rejected_ids"]
    trainer = PairTrainer(
        model=ingredients.model,
        args=DPOConfig(
            **ingredients.arguments,
            **router_loss_arguments(ingredients.model),
            beta=ingredients.beta,
            max_length=None,
        ),
        processing_class=ingredients.tokenizer,
        train_dataset=ingredients.rows.select_columns(columns),
    )
    if not objective.has_reference_model:
        forget_trls_copy(trainer)
        return trainer

    def ask(batch: Any) -> dict[str, Tensor]:
        found = _by_name(trainer.log_probabilities(trainer.model, batch))
        return {f"ref_{name}_logps": values for name, values in found.items()}

    compute_reference(trainer, ask)
    return trainer


def preference_trainer(trainer: type, objective: Objective) -> type:
    """A trainer class that learns by ``objective.judge``; its subclass says what ``answers`` are.

    Args:
        trainer: trl's, whose batches have ``input_ids``, ``attention_mask`` and ``completion_mask`` of
            the shape ``(sequences, tokens)``, equally many sequences a row.
        objective: What is learned.
    """
    import torch

    class PreferenceTrainer(trainer):
        _rows_in_step: Any = None
        _router_loss: Any = None
        _noted: Any = None

        def answers(self, model: Any, batch: dict[str, Any]) -> Answers:
            """What the model says of a batch's answers; a tensor of the shape ``(rows,)`` each."""
            raise NotImplementedError

        def log_probabilities(self, model: Any, batch: dict[str, Any], kind: str = "") -> Tensor:
            """Of each sequence's answer, in nats, of the shape ``(sequences,)``.

            Args:
                model: Answers.
                batch: From trl's collator.
                kind: What the names of the batch's tensors begin with.
            """
            ids, answers = batch[f"{kind}input_ids"], batch[f"{kind}completion_mask"]
            options: dict[str, Any] = {}
            # Rows are padded at their ends, where attention that looks back alone never comes to.
            # With a mask transformers and unsloth ask the device in each pass whether it hides anything.
            # Only a router's loss is of padding too.
            if self.aux_loss_enabled:
                mask = batch[f"{kind}attention_mask"]
                options = {"attention_mask": mask, "output_router_logits": True}
            found = model(
                input_ids=ids,
                labels=ids.masked_fill(answers == 0, _IGNORED),
                fused_lm_head=True,
                **options,
            )
            self._router_loss = found.aux_loss if self.aux_loss_enabled else None
            summed: Tensor = found.log_probs.float().sum(-1)
            return summed

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # trl's would tokenize text; these rows are tokens

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, items = super().get_batch_samples(*args, **kwargs)
            if batches:
                rows = torch.stack([self.is_taught(batch).sum() for batch in batches]).sum()
                self._rows_in_step = self.accelerator.reduce(
                    rows.to(self.accelerator.device), "sum"
                )
            return batches, items

        def is_taught(self, batch: dict[str, Any]) -> Tensor:
            """Whether each row teaches anything: all but those that ranks are filled up with."""
            taught: Tensor = batch["completion_mask"].any(-1)
            return taught.chunk(objective.sequences_per_row)[0]

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            answers = self.answers(model, inputs)
            judgement = objective.judge(answers, self.beta)
            taught = self.is_taught(inputs)
            loss = torch.where(taught, judgement.losses, 0.0).sum()
            if self._router_loss is not None:
                loss = loss + self.router_aux_loss_coef * self._router_loss * taught.sum()
            self._note(judgement, answers, taught)
            # transformers takes the mean over the step's micro-batches, and over the ranks.
            parts = self.current_gradient_accumulation_steps * self.accelerator.num_processes
            return loss * parts / self._rows_in_step

        def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            """What trackers are told, under trl's names; of all rows since the last logged step."""
            if self._noted is not None:
                noted = self.accelerator.reduce(torch.stack([*self._noted.values()]), "sum")
                sums = dict(zip(self._noted, noted.tolist(), strict=True))
                logs.update({name: one / rows for name, (one, rows) in sums.items() if rows})
                if {"rewards/chosen", "rewards/rejected"} <= logs.keys():
                    logs["rewards/margins"] = logs["rewards/chosen"] - logs["rewards/rejected"]
                self._noted = None
            super().log(logs, *args, **kwargs)

        def _note(self, judgement: Judgement, answers: Answers, taught: Tensor) -> None:
            noted = {
                name: torch.stack(
                    [torch.where(rows, values.detach(), 0.0).sum(), rows.float().sum()]
                )
                for name, values, rows in _told(judgement, answers, taught)
            }
            before = self._noted or dict.fromkeys(noted, 0.0)
            self._noted = {name: before[name] + one for name, one in noted.items()}

    return PreferenceTrainer


def _told(
    judgement: Judgement, answers: Answers, taught: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What is told of a batch: its name, a value a row, and the rows that it is of."""
    for what, found in (("rewards", judgement.rewards), ("logps", answers.log_probabilities)):
        if answers.labels is None:
            yield f"{what}/chosen", found["chosen"], taught
            yield f"{what}/rejected", found["rejected"], taught
        else:
            yield f"{what}/chosen", found["completion"], taught & answers.labels
            yield f"{what}/rejected", found["completion"], taught & ~answers.labels
    if answers.labels is None:
        right = judgement.rewards["chosen"] > judgement.rewards["rejected"]
        yield "rewards/accuracies", right.float(), taught


def _by_name(sequences: Tensor) -> dict[str, Tensor]:
    """trl's batches have all chosen answers first."""
    chosen, rejected = sequences.chunk(2)
    return {"chosen": chosen, "rejected": rejected}
