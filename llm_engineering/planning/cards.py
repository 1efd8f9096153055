"""The memory of named cards, as a program sees it."""

from __future__ import annotations

GIB = 1024**3

CARDS: dict[str, float] = {
    "T4": 14.6,
    "A10G": 22.0,
    "L4": 22.0,
    "RTX 4090": 23.5,
    "RTX 5090": 31.3,
    "A100 40 GB": 39.4,
    "L40S": 44.4,
    "A100 80 GB": 79.1,
    "H100": 79.2,
    "RTX PRO 6000": 94.9,
    "H200": 139.8,
    "B200": 176.0,
}
"""GiB that CUDA reports as a card's total: the driver keeps some of what data sheets say.

The H100's was read, the B200's is worked out as for a card that is not named here; the others are
from the messages of PyTorch's out-of-memory errors.
"""

FP8_CARDS = ("L4", "RTX 4090", "RTX 5090", "L40S", "H100", "RTX PRO 4500", "RTX PRO 6000", "H200", "B200")  # fmt: skip
"""Those of compute capability 8.9, 9.0, 10.0 and 12.0 (NVIDIA's table of CUDA GPUs)."""

_LIKE_THE_OTHERS = 0.985


def usable_bytes(card: str, memory_gib: float) -> float:
    """Bytes of a card that CUDA gives to a program.

    Args:
        card: NVIDIA's name, such as "A100".
        memory_gib: What the seller states, which also tells two cards of one name apart.
    """
    known = [
        gib
        for name, gib in CARDS.items()
        if card in (name, name.split()[0]) and gib <= memory_gib + 0.5
    ]
    return (max(known) if known else memory_gib * _LIKE_THE_OTHERS) * GIB
