"""Importing the training stack: unsloth before all it patches, or one line that says what to run."""

from __future__ import annotations

import importlib.util
import logging
import os
from typing import Any

from llm_engineering.errors import SetupError

PACKAGES = ("torch", "unsloth", "peft", "trl", "accelerate")


def require_training_stack() -> None:
    """Check that the training packages are installed, without importing them.

    Raises:
        SetupError: One is missing, as after a plain ``poetry install``.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f"the training packages are not installed ({', '.join(missing)}): run `make setup`"
        )


def has_pytorch() -> bool:
    """Whether PyTorch is installed, without importing it: a host that only launches jobs has none."""
    return importlib.util.find_spec("torch") is not None


_left_out = False


def leave_unsloth_out() -> None:
    """From now on ``import_unsloth`` imports nothing: this process trains by another backend, or
    not at all."""
    global _left_out
    _left_out = True


def import_unsloth() -> None:
    """Import unsloth, which must come before trl, transformers and peft.

    unsloth patches those three when it is imported, so every module of this project that needs
    one of them calls this first.
    """
    if _left_out:
        return
    require_training_stack()
    # unsloth writes generated trainers beside the process; keep them out of the user's folder.
    os.environ.setdefault(
        "UNSLOTH_COMPILE_LOCATION",
        os.path.join(os.path.expanduser("~"), ".cache", "unsloth_compiled_cache"),
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("torchao").setLevel(logging.ERROR)
    import unsloth  # noqa: F401  (for what it patches)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide what a run computes."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str] = {}
    names: tuple[Any, ...] = (*PACKAGES, "unsloth-zoo", "transformers", "datasets", "zenml")
    for name in (*names, "bitsandbytes"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
