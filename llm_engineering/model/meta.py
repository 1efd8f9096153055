"""A model's modules on PyTorch's meta device: names and shapes without memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_engineering.errors import ModelError
from llm_engineering.model_class import model_class


def meta_model(folder: Path, *, trust_remote_code: bool) -> Any:
    """The model of a folder without its weights, of the class that it is loaded in.

    Args:
        folder: Its configuration is enough.
        trust_remote_code: Whether to run the code that the model brings.

    Raises:
        ModelError: transformers cannot build one from the configuration.
    """
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code
        )
        with torch.device("meta"):
            return model_class(config).from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever the configuration's own code makes of it
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"model.id: transformers {transformers.__version__} cannot build a language model from "
            f"{folder / 'config.json'} ({type(error).__name__}: {reason}); is it one, and of a family "
            "that this version knows?"
        ) from error
