"""What an initialisation is: the facts that others ask for, and its three moments in a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from llm_engineering.peers import ALONE, Peers


@dataclass(frozen=True)
class Beginning:
    """What a training begins with."""

    seed: int
    """Of what is drawn at random."""
    checkpoint: Path | None
    """What training goes on from; None: the adapter is fresh."""
    weight_files: Callable[[], Sequence[Path]]
    """The base model's weights as they are on disk, in safetensors."""


class Initialisation:
    """One way to start an adapter; each has a file of its own beside this one.

    A training has one of its own, which may keep what it needs for the end. As it stands here it
    does nothing: the adapter is trained as PEFT made it.

    Args:
        folder: The run's work folder.
        peers: The processes that train together; the first one's start is everyone's.
    """

    name: ClassVar[str]
    """As in ``lora.init``."""
    peft_option: ClassVar[bool | str] = True
    """``init_lora_weights`` of ``peft.LoraConfig``, for the fresh adapter."""
    reads_weights: ClassVar[bool] = False
    """Whether training starts from the base model's weights, away from the base model's output."""
    belongs_to_quantised: ClassVar[bool] = False
    """Whether the adapter is right on 4-bit weights, and wrong on those that they were made of."""
    rank_factor: ClassVar[int] = 1
    """Rank of the adapter that is saved, by that of the adapter that is trained."""
    changes_at_end: ClassVar[bool] = False
    """Whether ``finish`` changes the model, so that it is measured once more."""
    keeps_weights: ClassVar[bool] = False
    """Whether each process keeps the adapted weights in its host's memory too."""
    can_be_sharded: ClassVar[bool] = True
    """Whether it can start where each process holds a part of the weights."""

    def __init__(self, folder: Path, peers: Peers = ALONE) -> None:
        self.folder = folder
        self.peers = peers

    def begin(self, model: Any, beginning: Beginning) -> None:
        """Give a PEFT model's adapter its start: after the first evaluation, before the first step."""

    def add_to(self, checkpoint: Path) -> None:
        """Add to a checkpoint what is needed to go on from it; asked of the first process."""

    def finish(self, model: Any) -> None:
        """Make an ordinary adapter, on the base model as it was, of what was trained."""

    @classmethod
    def fit_saved_weights(cls, model: Any) -> None:
        """Give a freshly adapted model the shape of an adapter that ``finish`` left."""
