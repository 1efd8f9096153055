"""KTO: whether an answer is good, measured against a reference model (arXiv 2402.01306)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from llm_engineering.objectives.equal_rows import weighing_rows_equally
from llm_engineering.objectives.logistic import log_sigmoid
from llm_engineering.objectives.objective import (
    MISMATCHED,
    Answers,
    Ingredients,
    Judgement,
    LearnsFrom,
    Objective,
    mismatched,
)
from llm_engineering.objectives.reference_model import (
    compute_reference,
    rewards_against_reference,
)

if TYPE_CHECKING:
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
        # The rows stay in this order, as trl asks; so they are mixed here, once, which also spreads
        # good and bad answers over the steps.
        rows = rows.shuffle(seed=arguments["data_seed"], keep_in_memory=True)
        trainer = _trainer_class()(
            model=ingredients.model,
            args=KTOConfig(**arguments, beta=ingredients.beta, max_length=None),
            processing_class=ingredients.tokenizer,
            train_dataset=rows,
        )
        compute_reference(trainer, ["ref_logps", "ref_KL_logps"])
        return trainer

    def judge(self, answers: Answers, beta: float) -> Judgement:
        """An answer's loss is ``1 - sigmoid(±(reward - reference point))`` (equation 8)."""
        rewards = rewards_against_reference(answers.log_probabilities, answers.reference, beta)
        apart = rewards.pop(MISMATCHED)
        point = max(math.fsum(apart) / len(apart), 0.0)
        signs = [1.0 if label else -1.0 for label in answers.labels]
        right = [
            sign * (one - point) for sign, one in zip(signs, rewards["completion"], strict=True)
        ]
        return Judgement([1.0 - math.exp(log_sigmoid(one)) for one in right], rewards)


def _trainer_class() -> type:
    """trl's trainer with one reference point for an optimizer step."""
    import torch
    from trl import KTOTrainer

    class Trainer(weighing_rows_equally(KTOTrainer)):  # type: ignore[misc]
        _reference_point: Any = None

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # trl's would tokenize text; these rows are tokens

        def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
            batches, items = super().get_batch_samples(*args, **kwargs)
            if batches:
                self._reference_point = self._estimate_reference_point(batches)
            return batches, items

        def _estimate_reference_point(self, batches: list[Any]) -> Any:
            device, model = self.accelerator.device, self.model
            total = torch.zeros((), device=device)
            with self.accelerator.autocast():
                for batch in batches:
                    batch = {name: part.to(device) for name, part in batch.items()}
                    logps = super()._compute_kl_logps(model, batch)
                    total += (logps.float() - batch["ref_KL_logps"]).sum()
            rows = torch.tensor(float(sum(len(batch["label"]) for batch in batches)), device=device)
            total, rows = self.accelerator.reduce((total, rows), reduction="sum")
            return total / rows

        def _compute_kl_logps(self, model: Any, batch: Any) -> Any:
            # trl takes the mean of the differences to the reference's, which are zeros here.
            return self._reference_point.expand(len(batch["label"]))

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            zeros = torch.zeros_like(inputs["ref_KL_logps"])
            return super().compute_loss(model, {**inputs, "ref_KL_logps": zeros}, *args, **kwargs)

    return Trainer
