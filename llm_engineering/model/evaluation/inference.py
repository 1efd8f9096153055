"""Running a model without training it, in the type that training computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any


@contextmanager
def inference(model: Any) -> Iterator[Any]:
    """Put a model into evaluation mode without gradients; yields its device.

    Computes under autocast where the frozen weights are 16-bit, as trl does. On leaving, the model
    is in the mode (training or evaluation) that it came in.
    """
    import torch

    device = next(model.parameters()).device
    dtype = model.get_input_embeddings().weight.dtype
    autocast = nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
    was_training = model.training
    model.eval()
    # What FSDP gathers here is used in training too, which inference mode would forbid.
    without_gradients = torch.no_grad() if _is_sharded(model) else torch.inference_mode()
    try:
        with without_gradients, autocast:
            yield device
    finally:
        model.train(was_training)


def _is_sharded(model: Any) -> bool:
    """Whether this process holds a part of each weight."""
    from torch.distributed.tensor import DTensor

    return isinstance(next(model.parameters()), DTensor)
