"""Running a model without training it, in the type that training computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any


@contextmanager
def inference(model: Any) -> Iterator[Any]:
    """Put a model into evaluation mode without gradients; yields its device.

    Computes under autocast where the frozen weights are 16-bit, as trl does. On leaving, every module
    is in the mode (training or evaluation) that it came in, and recomputes activations and uses a
    cache if it did: unsloth's ``generate`` turns the one off and the other on, and a training that
    went on so would keep all activations. A mixture's router is not asked for its logits meanwhile: trl
    leaves it so for training, and the loss that transformers makes of them dies in ``generate``.
    """
    import torch

    device = next(model.parameters()).device
    dtype = model.get_input_embeddings().weight.dtype
    autocast = nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)
    before = _modes(model)
    model.eval()
    for part, name, value in before:
        if name == _ROUTER_LOGITS and value is not _ABSENT:
            setattr(part, name, False)
    # What FSDP gathers here is used in training too, which inference mode would forbid.
    without_gradients = torch.no_grad() if _is_sharded(model) else torch.inference_mode()
    try:
        with without_gradients, autocast:
            yield device
    finally:
        _restore(before)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Whatever draws from PyTorch's generators meanwhile, they go on as if nothing had."""
    import torch

    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    with torch.random.fork_rng(devices=list(devices)):
        yield


_FLAGS = ("training", "gradient_checkpointing", "_flag_for_generation")
_ABSENT = object()
_ROUTER_LOGITS = "output_router_logits"


def _modes(model: Any) -> list[tuple[Any, str, Any]]:
    """Objects with the name and the value of each of their flags; of modules and configurations."""
    found = [
        (part, name, vars(part).get(name, _ABSENT)) for part in model.modules() for name in _FLAGS
    ]
    configs = {}
    for part in model.modules():
        for name in ("config", "generation_config"):
            if (config := vars(part).get(name)) is not None:
                configs[id(config)] = config
    return found + [
        (one, name, vars(one).get(name, _ABSENT))
        for one in configs.values()
        for name in ("use_cache", _ROUTER_LOGITS)
    ]


def _restore(flags: list[tuple[Any, str, Any]]) -> None:
    for part, name, value in flags:
        if vars(part).get(name, _ABSENT) is value:
            continue
        if value is _ABSENT:
            delattr(part, name)
        else:
            setattr(part, name, value)


def _is_sharded(model: Any) -> bool:
    """Whether this process holds a part of each weight."""
    from torch.distributed.tensor import DTensor

    return isinstance(next(model.parameters()), DTensor)
