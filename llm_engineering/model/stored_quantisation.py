"""Checkpoints that are published quantised: what can be read, and how.

Those in FP8 by blocks (``quant_method: fp8``, as DeepSeek and Qwen publish) are loaded as the 16-bit
numbers that they stand for, on any device, by transformers; ``model.quantisation: fp8`` then rounds
those by row. A checkpoint that bitsandbytes wrote is loaded as it is.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ModelError
from llm_engineering.model.base_model import model_folder, read_config

_NEEDS = {"compressed-tensors": "compressed_tensors", "fbgemm_fp8": "fbgemm_gpu"}


def stored_quantisation(folder: Path) -> str | None:
    """The method by which a model's weights are quantised on disk."""
    stated = read_config(folder).get("quantization_config")
    return str(stated.get("quant_method")) if isinstance(stated, dict) else None


def require_readable_weights(settings: ModelSettings) -> None:
    """Check that weights which are quantised on disk can be loaded as the configuration asks.

    Raises:
        ModelError: They cannot.
    """
    method = stored_quantisation(model_folder(settings, weights=False))
    if method == "fp8" and settings.quantisation == "nf4":
        raise ModelError(
            f"model.quantisation: nf4: the weights of {settings.id} are in FP8 on disk, and rounded "
            "twice they would lose more; set it to fp8 or none, or name the 16-bit model as model.id"
        )
    package = _NEEDS.get(method or "")
    if package and find_spec(package) is None:
        raise ModelError(
            f"model.id: the weights of {settings.id} are quantised on disk ({method}), which takes the "
            f"package {package} to read; name the 16-bit model, or one in FP8 by blocks"
        )


def dequantising(folder: Path) -> dict[str, Any]:
    """Arguments by which transformers loads a folder's FP8 weights as 16-bit ones; else none."""
    if stored_quantisation(folder) != "fp8":
        return {}
    from transformers import FineGrainedFP8Config

    return {"quantization_config": FineGrainedFP8Config(dequantize=True)}
