"""The reference model of dpo and kto: the policy as training finds it, asked once.

It is the base model where the adapter is fresh, the SFT policy where it starts from one. Its
log-probabilities are computed before the first step. That costs one pass over the data and eight
bytes an answer; trl's other way, a second frozen adapter, costs its memory and one more forward pass
in every step.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

_REFERENCE = "ref"  # trl's name for its copy of the adapter


def compute_reference(trainer: Any, columns: list[str]) -> None:
    """Add the policy's log-probabilities, as they are now, to the trainer's rows.

    Processes that train together share the rows; all of them must ask.
    """
    from accelerate.utils import gather_object
    from torch.utils.data import DataLoader

    rows, accelerator = trainer.train_dataset, trainer.accelerator
    logger.info("computing the reference model's log-probabilities of %d rows", len(rows))
    count, own = accelerator.num_processes, accelerator.process_index
    share = rows.select(range(own * len(rows) // count, (own + 1) * len(rows) // count))
    loader = DataLoader(
        share,
        batch_size=trainer.args.per_device_train_batch_size,
        collate_fn=trainer.data_collator,
    )
    found: dict[str, list[float]] = {column: [] for column in columns}
    for batch in loader:
        inputs = {name: value.to(accelerator.device) for name, value in batch.items()}
        values = trainer.compute_ref_log_probs(trainer.model, inputs)
        for column, value in zip(columns, values, strict=True):
            found[column] += value.float().tolist()
    for column, numbers in found.items():
        rows = rows.add_column(column, gather_object(numbers))
    trainer.train_dataset = rows
    trainer.precompute_ref_logps = True
    trainer.model.delete_adapter(_REFERENCE)


def rewards_against_reference(
    log_probabilities: Mapping[str, Sequence[float]],
    reference: Mapping[str, Sequence[float]],
    beta: float,
) -> dict[str, list[float]]:
    """``beta * (log p - log p of the reference model)`` (arXiv 2305.18290, equation 5)."""
    return {
        name: [beta * (p - q) for p, q in zip(values, reference[name], strict=True)]
        for name, values in log_probabilities.items()
    }
