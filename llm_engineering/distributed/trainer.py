"""What transformers' trainer needs to know to be one of several ranks, and to learn as one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llm_engineering.distributed import world
from llm_engineering.distributed.fsdp import sharding_arguments

BlankRow = Callable[[Mapping[str, Any]], dict[str, Any]]


def distributed_arguments() -> dict[str, Any]:
    """Arguments beside those of a process that trains alone (``transformers.TrainingArguments``)."""
    if world.ranks() == 1:
        return {}
    import torch

    return {
        "use_cpu": not torch.cuda.is_available(),
        "ddp_find_unused_parameters": False,  # every adapter takes part in every forward pass
        "ddp_broadcast_buffers": False,  # a frozen model's are equal
        **sharding_arguments(),
    }


def name_cpu_plainly(trainer: Any) -> None:
    """Undo that accelerate calls a rank's CPU ``cpu:0``, which ``torch.load`` does not know."""
    import torch

    if world.ranks() > 1 and not torch.cuda.is_available():
        trainer.args.__dict__["_setup_devices"] = torch.device("cpu")


def fill_last_step(trainer: Any, blank_row: BlankRow) -> None:
    """Complete an epoch's last micro-batches with a row that teaches nothing.

    Ranks must do equally many forward passes; accelerate fills up with rows of the epoch's
    beginning, which would be learned twice. Here it is a row whose loss is zero, and which does not
    count in the mean.

    Args:
        trainer: Its rows are those of an epoch.
        blank_row: Makes such a row of another.
    """
    ranks = world.ranks()
    rows = trainer.train_dataset
    missing = -len(rows) % (trainer.args.per_device_train_batch_size * ranks)
    if ranks == 1 or not missing:
        return
    import datasets
    from accelerate.data_loader import SeedableRandomSampler

    blank = rows.select([0]).map(blank_row, features=rows.features, keep_in_memory=True)
    trainer.train_dataset = datasets.concatenate_datasets([rows, blank])
    trainer._get_train_sampler = lambda *_: _ThenBlanks(
        SeedableRandomSampler(rows, data_seed=trainer.args.data_seed), len(rows), missing
    )


class _ThenBlanks:
    """The order of an epoch, as accelerate makes it, and then the blank row so many times."""

    def __init__(self, order: Any, blank: int, times: int) -> None:
        self._order, self._blank, self._times = order, blank, times

    def __iter__(self) -> Iterator[int]:
        yield from self._order
        yield from [self._blank] * self._times

    def __len__(self) -> int:
        return len(self._order) + self._times

    def set_epoch(self, epoch: int) -> None:
        """Told by accelerate at the start of each epoch."""
        self._order.set_epoch(epoch)
