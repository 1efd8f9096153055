"""ORPO: which of two answers is better, and the better one itself; no reference (arXiv 2403.07691)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llm_engineering.objectives.equal_rows import weighing_rows_equally
from llm_engineering.objectives.logistic import log_odds, log_sigmoid
from llm_engineering.objectives.objective import (
    Answers,
    Ingredients,
    Judgement,
    LearnsFrom,
    Objective,
)

if TYPE_CHECKING:
    from transformers import Trainer

_IGNORED = -100  # the label that PyTorch's cross-entropy passes over
# Places in what trl's forward pass gives: mean log-probabilities of the chosen answers' tokens, one a
# row, and the likelihood term.
_CHOSEN, _LIKELIHOOD = 0, 4


class Orpo(Objective):
    """Likelihood of the better answer and an odds ratio; the default rate is its paper's (section 5)."""

    name: ClassVar[str] = "orpo"
    title: ClassVar[str] = "which of two answers is better, by ORPO"
    learning_rate: ClassVar[float] = 8e-6
    learns_from: ClassVar[LearnsFrom] = "pairs"
    sequences_per_row: ClassVar[int] = 2
    has_reference_model: ClassVar[bool] = False
    definition: ClassVar[int] = 2
    unit: ClassVar[str] = "per pair"

    def make_trainer(self, ingredients: Ingredients) -> Trainer:
        """trl's, on rows that are tokens already, with the loss that ``judge`` has too."""
        import datasets
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        class Trainer(weighing_rows_equally(ORPOTrainer)):  # type: ignore[misc]
            def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
                return feature

            def concatenated_forward(self, model: Any, batch: Any) -> Any:
                # trl's likelihood term is over prompt and answer, a mean over the micro-batch's
                # tokens. The paper's is the answer's alone (equation 6), and so is what is measured.
                parts = list(super().concatenated_forward(model, batch))
                parts[_LIKELIHOOD] = -parts[_CHOSEN].float().mean()
                return tuple(parts)

        columns = ["prompt_ids", "chosen_ids", "rejected_ids"]
        # trl maps the rows, and what is mapped would be cached beside the prepared data.
        datasets.disable_caching()
        try:
            return Trainer(
                model=ingredients.model,
                args=ORPOConfig(
                    **ingredients.arguments, beta=ingredients.beta, remove_unused_columns=False
                ),
                data_collator=PairCollator(ingredients.tokenizer.pad_token_id),
                processing_class=ingredients.tokenizer,
                train_dataset=ingredients.rows.select_columns(columns),
            )
        finally:
            datasets.enable_caching()

    def judge(self, answers: Answers, beta: float) -> Judgement:
        """The chosen answer's mean negative log-likelihood, and ``beta`` times the odds-ratio loss.

        That is the paper's equation 6. A reward is ``beta`` times the mean log-probability of a
        token.
        """
        means = {
            name: [p / n for p, n in zip(values, answers.tokens[name], strict=True)]
            for name, values in answers.log_probabilities.items()
        }
        losses = [
            -chosen - beta * log_sigmoid(log_odds(chosen) - log_odds(rejected))
            for chosen, rejected in zip(means["chosen"], means["rejected"], strict=True)
        ]
        rewards = {name: [beta * p for p in values] for name, values in means.items()}
        return Judgement(losses, rewards)


class PairCollator:
    """Pads pairs as ``ORPOTrainer`` takes them, and all of it once more for counting tokens."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Tensors of the shape ``(rows, longest answer with its prompt)``, and of twice the rows."""
        import torch

        width = max(
            len(row["prompt_ids"]) + len(row[f"{name}_ids"])
            for row in rows
            for name in ("chosen", "rejected")
        )
        batch: dict[str, Any] = {}
        for name in ("chosen", "rejected"):
            input_ids = torch.full((len(rows), width), self._pad_id)
            labels = torch.full((len(rows), width), _IGNORED)
            mask = torch.zeros((len(rows), width), dtype=torch.long)
            for index, row in enumerate(rows):
                start, ids = len(row["prompt_ids"]), row["prompt_ids"] + row[f"{name}_ids"]
                input_ids[index, : len(ids)] = torch.tensor(ids)
                labels[index, start : len(ids)] = torch.tensor(ids[start:])
                mask[index, : len(ids)] = 1
            batch |= {
                f"{name}_input_ids": input_ids,
                f"{name}_attention_mask": mask,
                f"{name}_labels": labels,
            }
        for part in ("input_ids", "attention_mask"):
            batch[part] = torch.cat([batch[f"chosen_{part}"], batch[f"rejected_{part}"]])
        return batch
