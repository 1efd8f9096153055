"""DPO: which of two answers is better, measured against a reference model (arXiv 2305.18290)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from llm_engineering.objectives.equal_rows import weighing_rows_equally
from llm_engineering.objectives.logistic import log_sigmoid
from llm_engineering.objectives.objective import (
    Answers,
    Ingredients,
    Judgement,
    LearnsFrom,
    Objective,
)
from llm_engineering.objectives.reference_model import (
    compute_reference,
    rewards_against_reference,
)
from llm_engineering.objectives.router_loss import router_loss_arguments

if TYPE_CHECKING:
    from transformers import Trainer


class Dpo(Objective):
    """``-log sigmoid`` of the margin of two rewards; the default rate is the handbook's."""

    name: ClassVar[str] = "dpo"
    title: ClassVar[str] = "which of two answers is better, by DPO"
    learning_rate: ClassVar[float] = 2e-6
    learns_from: ClassVar[LearnsFrom] = "pairs"
    sequences_per_row: ClassVar[int] = 2
    makes_all_logits: ClassVar[bool] = False  # trl's fused head goes through them in tiles
    unit: ClassVar[str] = "per pair"

    def make_trainer(self, ingredients: Ingredients) -> Trainer:
        """trl's, on rows that are tokens already."""
        from trl import DPOConfig, DPOTrainer

        class Trainer(weighing_rows_equally(DPOTrainer)):  # type: ignore[misc]
            def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
                return dataset  # trl's would tokenize text; these rows are tokens

        columns = ["prompt_ids", "chosen_ids", "rejected_ids"]
        trainer = Trainer(
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
        compute_reference(trainer, ["ref_chosen_logps", "ref_rejected_logps"])
        return trainer

    def judge(self, answers: Answers, beta: float) -> Judgement:
        """A pair's loss is ``-log sigmoid(margin)`` of its rewards (equation 7)."""
        rewards = rewards_against_reference(answers.log_probabilities, answers.reference, beta)
        margins = [a - b for a, b in zip(rewards["chosen"], rewards["rejected"], strict=True)]
        return Judgement([-log_sigmoid(one) for one in margins], rewards)
