"""What takes how much room on the disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from llm_engineering.lineage.store import existing, store_folder
from llm_engineering.outputs import work_folder
from llm_engineering.scheduling.schedules import FOLDER, ROOT


def folder_bytes(folder: Path) -> int:
    """Bytes that a folder's files take; a file that is linked several times counts once."""
    seen: dict[tuple[int, int], int] = {}
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(path, name))
            except FileNotFoundError:
                continue  # removed meanwhile
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, which may not be there yet."""
    return shutil.disk_usage(existing(folder.absolute())).free


def run_folders(outputs: Path) -> list[Path]:
    """Folders of finished and of unfinished runs."""
    finished = [path for path in outputs.glob("*") if path.is_dir() and not path.is_symlink()]
    unfinished = [path for path in work_folder(outputs).glob("*") if path.is_dir()]
    return sorted(path for path in finished if path != work_folder(outputs)) + sorted(unfinished)


def other_places() -> Iterator[tuple[str, Path]]:
    """What is large beside the runs: ZenML's store, models, caches, logs of schedules."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = {
        "ZenML's database and copies": store_folder(),
        "base models": ROOT / "models",
        "the Hub's cache": Path(os.environ.get("HF_HOME") or caches / "huggingface"),
        "schedules: histories and logs": FOLDER,
    }
    yield from ((name, folder) for name, folder in places.items() if folder.is_dir())
