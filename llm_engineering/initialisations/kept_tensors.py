"""A file of tensors in a run's work folder, of which every checkpoint has its copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from llm_engineering.peers import ALONE, Peers


class KeptTensors:
    """The file; the first process writes and copies it."""

    def __init__(self, folder: Path, name: str, peers: Peers = ALONE) -> None:
        self._file = folder / name
        self._peers = peers

    def write(self, tensors: dict[str, Any]) -> None:
        """Write it, in place of what it was."""
        from safetensors.torch import save_file

        part = self._file.with_suffix(".part")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
        os.replace(part, self._file)

    def read(self) -> dict[str, Any]:
        """The first one's, on the CPU; every process must ask: another host has no such file."""
        from safetensors.torch import load_file

        own = load_file(self._file) if self._peers.is_first() else None
        found: dict[str, Any] = self._peers.as_the_first_says(own)
        return found

    def add_to(self, checkpoint: Path) -> None:
        """Copy it into a checkpoint, if it has been written."""
        if self._file.is_file():
            shutil.copy2(self._file, checkpoint / self._file.name)

    def restore_from(self, checkpoint: Path) -> None:
        """Go on with a checkpoint's, if it has one."""
        if (checkpoint / self._file.name).is_file():
            shutil.copy2(checkpoint / self._file.name, self._file)
