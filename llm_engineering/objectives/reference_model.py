"""The reference model of dpo and kto: the policy as training finds it, asked once.

It is the base model where the adapter is fresh, the SFT policy where it starts from one. Its
log-probabilities are computed before the first step. That costs one pass over the data and eight
bytes an answer; trl's other way, a second frozen adapter, costs its memory and one more forward pass
in every step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from llm_engineering.objectives.objective import Answers

logger = logging.getLogger(__name__)

_REFERENCE = "ref"  # trl's name for its copy of the adapter


def compute_reference(trainer: Any, ask: Callable[[Any], dict[str, Tensor]]) -> None:
    """Add the policy's log-probabilities, as they are now, to the trainer's rows.

    Processes that train together share the rows; all of them must ask.

    Args:
        trainer: trl's, before its first step.
        ask: A batch's log-probabilities, a value a row, by the column that they are put into.
    """
    import torch
    from accelerate.utils import gather_object
    from torch.utils.data import DataLoader

    rows, accelerator, model = trainer.train_dataset, trainer.accelerator, trainer.model
    logger.info("computing the reference model's log-probabilities of %d rows", len(rows))
    count, own = accelerator.num_processes, accelerator.process_index
    share = rows.select(range(own * len(rows) // count, (own + 1) * len(rows) // count))
    loader = DataLoader(
        share,
        batch_size=trainer.args.per_device_train_batch_size,
        collate_fn=trainer.data_collator,
    )
    found: list[dict[str, float]] = []
    was_training = model.training
    model.eval()  # no dropout
    with torch.no_grad(), accelerator.autocast():
        for batch in loader:
            inputs = {name: value.to(accelerator.device) for name, value in batch.items()}
            columns = {name: values.tolist() for name, values in ask(inputs).items()}
            found += [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
    model.train(was_training)
    found = gather_object(found)
    for column in found[0]:
        rows = rows.add_column(column, [one[column] for one in found])
    trainer.train_dataset = rows
    forget_trls_copy(trainer)


def forget_trls_copy(trainer: Any) -> None:
    """Delete the frozen copy of the adapter that trl makes."""
    trainer.model.delete_adapter(_REFERENCE)


def rewards_against_reference(answers: Answers, beta: float) -> dict[str, Tensor]:
    """``beta * (log p - log p of the reference model)`` (arXiv 2305.18290, equation 5)."""
    return {
        name: beta * (values - answers.reference[name])
        for name, values in answers.log_probabilities.items()
    }
