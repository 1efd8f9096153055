"""A schedule's small file: written whole or not at all, and for its user alone."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put a text in the place of a file's, which stays as it was if that fails.

    Raises:
        OSError: It cannot be written; nothing is left beside it.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.touch(mode=0o600)
        part.chmod(0o600)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
