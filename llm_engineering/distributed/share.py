"""How many ranks train, and what share of an optimizer step falls to each."""

from __future__ import annotations

import logging

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import ConfigError, HardwareError

logger = logging.getLogger(__name__)


def choose_ranks(gpus: str) -> int:
    """The number of ranks that ``--gpus`` asks for on this host.

    Args:
        gpus: "auto" (one rank a visible GPU, and one on a CPU), or a number. On a CPU a number
            starts so many processes, which share its cores: for tests, since it is not faster.

    Raises:
        ConfigError: It is no such value.
        HardwareError: The host has fewer GPUs.
    """
    import torch

    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus == "auto":
        return max(1, visible)
    if not gpus.isdecimal() or int(gpus) < 1:
        raise ConfigError(f"--gpus: {gpus} is neither auto nor a number of GPUs from 1")
    ranks = int(gpus)
    if visible and ranks > visible:
        raise HardwareError(
            f"--gpus {ranks}: PyTorch sees {visible} GPU{'s' * (visible > 1)} here; "
            "give that number, or auto"
        )
    if not visible and ranks > 1:
        logger.warning("--gpus %d without a GPU: %d processes share the CPU (gloo)", ranks, ranks)
    return ranks


def share_of_step(train: TrainSettings, ranks: int) -> TrainSettings:
    """The settings by which one rank does its share of every step: the effective batch is kept.

    Args:
        train: The settings of the whole step.
        ranks: How many share it equally.

    Raises:
        ConfigError: They cannot; says which nearest values can.
    """
    if ranks == 1:
        return train
    rows, accumulation = train.rows_in_step, train.gradient_accumulation
    if train.micro_batch == "auto" and accumulation is not None:
        if accumulation % ranks:
            raise ConfigError(
                f"train.gradient_accumulation: {accumulation} forward passes cannot be shared by "
                f"{ranks} GPUs; {_nearest(accumulation, ranks)}"
            )
    else:
        least = train.micro_batch if train.micro_batch != "auto" else 1
        if rows % (least * ranks):
            fewer = next(n for n in range(ranks - 1, 0, -1) if n == 1 or rows % (least * n) == 0)
            raise ConfigError(
                f"train.effective_batch: {rows} rows a step cannot be shared by {ranks} GPUs in "
                f"micro-batches of {least}; {_nearest(rows, least * ranks)}, or "
                f"{fewer} GPU{'s' * (fewer > 1)}"
            )
    return train.model_copy(
        update={
            "effective_batch": rows // ranks,
            "gradient_accumulation": None if accumulation is None else accumulation // ranks,
        }
    )


def _nearest(value: int, unit: int) -> str:
    below, above = value // unit * unit, -(-value // unit) * unit
    return f"the nearest possible are {below} and {above}" if below else f"the nearest is {above}"
