"""Writing a safetensors file tensor by tensor: the library's own writer wants all of them at once."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
FLOATS = frozenset({"BF16", "F16", "F32", "F64"})


@dataclass(frozen=True)
class TensorSlot:
    """A tensor's place in a file: safetensors' name of its type ("BF16"), and its shape."""

    dtype: str
    shape: Sequence[int]


def torch_dtype(dtype: str) -> Any:
    """The PyTorch type of one of safetensors' names; None if PyTorch has none."""
    import torch

    return getattr(torch, _DTYPES[dtype]) if dtype in _DTYPES else None


def write_tensors(path: Path, slots: Mapping[str, TensorSlot], tensor: Callable[[str], Any]) -> int:
    """Write a safetensors file (header length, JSON header, then the tensors' bytes).

    Args:
        path: The file.
        slots: What will be in it, in order.
        tensor: Called for each name in turn; its result has the slot's type and shape, and is let
            go of before the next is asked for.

    Returns:
        Bytes of all tensors.
    """
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, slot in slots.items():
        begin = end
        count = 1
        for size in slot.shape:
            count *= size
        end += count * torch_dtype(slot.dtype).itemsize
        header[name] = {
            "dtype": slot.dtype,
            "shape": list(slot.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, slot in slots.items():
            value = tensor(name)
            if list(value.shape) != list(slot.shape) or value.dtype != torch_dtype(slot.dtype):
                raise ValueError(f"{name}: {value.dtype} {tuple(value.shape)}, expected {slot}")
            file.write(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    return end
