"""KTO: whether an answer is good, measured against a reference model (arXiv 2402.01306)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

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

if TYPE_CHECKING:
    from transformers import Trainer


class Kto(Objective):
    """``1 - sigmoid`` of a signed reward; the default rate is the upper end of its paper's range."""

    name: ClassVar[str] = "kto"
    title: ClassVar[str] = "whether an answer is good, by KTO"
    learning_rate: ClassVar[float] = 5e-6
    learns_from: ClassVar[LearnsFrom] = "judged answers"
    # Its reference point is estimated from the other rows of a micro-batch (section 4.1).
    least_micro_batch: ClassVar[int] = 2
    unit: ClassVar[str] = "per answer"

    def make_trainer(self, ingredients: Ingredients) -> Trainer:
        """trl's, on rows that are tokens already and carry their neighbour's answer."""
        from trl import KTOConfig, KTOTrainer

        class Trainer(KTOTrainer):
            def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
                return dataset

        # The rows stay in this order, since each carries its neighbour's answer; so they are mixed
        # here, once, which also spreads good and bad answers over the micro-batches.
        arguments = ingredients.arguments
        order = ingredients.rows.select_columns(["prompt_ids", "completion_ids", "label"])
        order = order.shuffle(seed=arguments["data_seed"], keep_in_memory=True)
        micro_batch = arguments["per_device_train_batch_size"]
        mismatched = neighbours(order["completion_ids"][:], micro_batch)
        trainer = Trainer(
            model=ingredients.model,
            args=KTOConfig(**arguments, beta=ingredients.beta, max_length=None),
            processing_class=ingredients.tokenizer,
            train_dataset=order.add_column("KL_completion_ids", mismatched),
        )
        compute_reference(trainer, ["ref_logps", "ref_KL_logps"])
        return trainer

    def judge(self, answers: Answers, beta: float) -> Judgement:
        """An answer's loss is ``1 - sigmoid(±reward)`` (equation 8, its reference point at zero)."""
        rewards = rewards_against_reference(answers.log_probabilities, answers.reference, beta)
        signs = [1.0 if label else -1.0 for label in answers.labels]
        right = [sign * one for sign, one in zip(signs, rewards["completion"], strict=True)]
        return Judgement([1.0 - math.exp(log_sigmoid(one)) for one in right], rewards)


def neighbours(answers: list[list[int]], micro_batch: int) -> list[list[int]]:
    """For each row of a micro-batch the answer before its own, as ``KTOTrainer`` pairs them.

    KTO's reference point is estimated from such mismatched pairs (arXiv 2402.01306, section 4.1).
    A last row that is alone takes the answer before it, since its own would be no mismatch.
    """
    found: list[list[int]] = []
    for start in range(0, len(answers), micro_batch):
        part = answers[start : start + micro_batch]
        found += [part[-1] if len(part) > 1 else answers[start - 1], *part[:-1]]
    return found
