"""Names, types and shapes of a model's tensors, read from the headers of its weight files alone."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.model.base_model import (
    hub_error,
    is_hub_model,
    model_folder,
    weight_files,
    weight_names,
)


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file."""

    dtype: str
    """As the format names it: F32, BF16, F8_E4M3, U8 ..."""
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


def weight_headers(settings: ModelSettings) -> dict[str, StoredTensor]:
    """The tensors of a base model, by name.

    Of a Hub model whose weights are not in the Hub's cache, only the headers are fetched.

    Raises:
        ModelError: There are no safetensors, one is damaged, or the Hub does not answer.
    """
    folder = model_folder(settings, weights=False)
    names = weight_names(folder)
    is_here = bool(names) and all((folder / name).is_file() for name in names)
    if is_hub_model(settings) and not is_here:
        return _of_the_hub(settings, folder.name)
    headers: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        headers |= _of_a_file(path)
    return headers


def _of_a_file(path: Path) -> dict[str, StoredTensor]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {
        name: StoredTensor(entry["dtype"], tuple(entry["shape"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _of_the_hub(settings: ModelSettings, revision: str) -> dict[str, StoredTensor]:
    from huggingface_hub import get_safetensors_metadata

    try:
        found = get_safetensors_metadata(settings.id, revision=revision)
    except Exception as error:  # the library raises whatever its transport raised
        raise hub_error(settings, error) from error
    return {
        name: StoredTensor(str(tensor.dtype), tuple(tensor.shape))
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
