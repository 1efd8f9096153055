"""The trainers of the preference objectives: trl's, on rows that are prepared already.

The reference model of dpo and kto is the policy as training finds it: the base model where the
adapter is fresh, the SFT policy where it starts from one. Its log-probabilities are computed once,
before the first step. That costs one pass over the data and eight bytes an answer; trl's other way,
a second frozen adapter, costs its memory and one more forward pass in every step.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.model.live import LiveModel

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

_REFERENCE = "ref"  # trl's name for its copy of the adapter


def preference_trainer(
    held: LiveModel, rows: datasets.Dataset, settings: TrainSettings, arguments: dict[str, Any]
) -> Any:
    """trl's trainer for ``settings.objective``, ready to train.

    Args:
        held: Model and tokenizer.
        rows: The train split that was prepared for the objective.
        settings: Objective and beta.
        arguments: Arguments that all trainers share (``transformers.TrainingArguments``).
    """
    make = {"dpo": _dpo, "orpo": _orpo, "kto": _kto}[settings.objective]
    return make(held, rows, settings, arguments)


def _dpo(
    held: LiveModel, rows: datasets.Dataset, settings: TrainSettings, arguments: dict[str, Any]
) -> Any:
    from trl import DPOConfig, DPOTrainer

    class Trainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # trl's would tokenize text; these rows are tokens

    trainer = Trainer(
        model=held.model,
        args=DPOConfig(**arguments, beta=settings.beta, max_length=None),
        processing_class=held.tokenizer,
        train_dataset=rows.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]),
    )
    _compute_reference(trainer, ["ref_chosen_logps", "ref_rejected_logps"])
    return trainer


def _kto(
    held: LiveModel, rows: datasets.Dataset, settings: TrainSettings, arguments: dict[str, Any]
) -> Any:
    from trl import KTOConfig, KTOTrainer

    class Trainer(KTOTrainer):
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    # The rows stay in this order, since each carries its neighbour's answer; so they are mixed
    # here, once, which also spreads good and bad answers over the micro-batches.
    order = rows.select_columns(["prompt_ids", "completion_ids", "label"])
    order = order.shuffle(seed=arguments["data_seed"], keep_in_memory=True)
    answers = _neighbours(order["completion_ids"][:], arguments["per_device_train_batch_size"])
    trainer = Trainer(
        model=held.model,
        args=KTOConfig(**arguments, beta=settings.beta, max_length=None),
        processing_class=held.tokenizer,
        train_dataset=order.add_column("KL_completion_ids", answers),
    )
    _compute_reference(trainer, ["ref_logps", "ref_KL_logps"])
    return trainer


def _orpo(
    held: LiveModel, rows: datasets.Dataset, settings: TrainSettings, arguments: dict[str, Any]
) -> Any:
    import datasets
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Trainer(ORPOTrainer):
        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return feature

    # trl maps the rows, and what is mapped would be cached beside the prepared data.
    datasets.disable_caching()
    try:
        return Trainer(
            model=held.model,
            args=ORPOConfig(**arguments, beta=settings.beta, remove_unused_columns=False),
            data_collator=_PairCollator(held.tokenizer.pad_token_id),
            processing_class=held.tokenizer,
            train_dataset=rows.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"]),
        )
    finally:
        datasets.enable_caching()


class _PairCollator:
    """Pads pairs as ``ORPOTrainer`` takes them, and all of it once more for counting tokens."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        width = max(
            len(row["prompt_ids"]) + len(row[f"{name}_ids"])
            for row in rows
            for name in ("chosen", "rejected")
        )
        batch: dict[str, Any] = {}
        for name in ("chosen", "rejected"):
            input_ids = torch.full((len(rows), width), self._pad_id)
            labels = torch.full((len(rows), width), IGNORED)
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


def _neighbours(answers: list[list[int]], micro_batch: int) -> list[list[int]]:
    """For each row of a micro-batch the answer before its own, as ``KTOTrainer`` pairs them.

    KTO's reference point is estimated from such mismatched pairs (arXiv 2402.01306, section 4.1).
    A last row that is alone takes the answer before it, since its own would be no mismatch.
    """
    found: list[list[int]] = []
    for start in range(0, len(answers), micro_batch):
        part = answers[start : start + micro_batch]
        found += [part[-1] if len(part) > 1 else answers[start - 1], *part[:-1]]
    return found


def _compute_reference(trainer: Any, columns: list[str]) -> None:
    """Add the policy's log-probabilities, as they are now, to the trainer's rows."""
    from torch.utils.data import DataLoader

    rows = trainer.train_dataset
    logger.info("computing the reference model's log-probabilities of %d rows", len(rows))
    loader = DataLoader(
        rows,
        batch_size=trainer.args.per_device_train_batch_size,
        collate_fn=trainer.data_collator,
    )
    found: dict[str, list[float]] = {column: [] for column in columns}
    for batch in loader:
        inputs = {name: value.to(trainer.accelerator.device) for name, value in batch.items()}
        values = trainer.compute_ref_log_probs(trainer.model, inputs)
        for column, value in zip(columns, values, strict=True):
            found[column] += value.float().tolist()
    for column, numbers in found.items():
        rows = rows.add_column(column, numbers)
    trainer.train_dataset = rows
    trainer.precompute_ref_logps = True
    trainer.model.delete_adapter(_REFERENCE)
