"""What an initialisation is: the facts that configuration and planning ask for, and its three moments."""

from __future__ import annotations

from typing import ClassVar


class Initialisation:
    """One way to start an adapter; each has a file of its own beside this one."""

    name: ClassVar[str]
    """As in ``lora.init``."""
    peft_option: ClassVar[bool | str] = True
    """``init_lora_weights`` of ``peft.LoraConfig``, for the fresh adapter."""
    reads_weights: ClassVar[bool] = False
    """Whether training starts from the base model's weights, away from the base model's output."""
    rank_factor: ClassVar[int] = 1
    """Rank of the adapter that is saved, by that of the adapter that is trained."""
    can_be_sharded: ClassVar[bool] = True
    """Whether it can start where each rank holds a part of the weights."""
