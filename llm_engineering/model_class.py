"""The class of transformers that holds a base model whole, by its configuration alone."""

from __future__ import annotations

from typing import Any

TEXT, SEEING = "AutoModelForCausalLM", "AutoModelForImageTextToText"


def auto_class_name(architecture: str) -> str:
    """Name of transformers' auto class for an architecture.

    A checkpoint that also reads images keeps all its parts, under the names of its files, although only
    its text part is trained: what unsloth loads on a GPU, and what serves the merged model afterwards.

    Args:
        architecture: Class name in the model's config.json.
    """
    if not architecture.endswith("ForConditionalGeneration"):
        return TEXT
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    known = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values()
    names = {name for each in known for name in (each if isinstance(each, tuple) else (each,))}
    return SEEING if architecture in names else TEXT


def model_class(config: Any) -> Any:
    """transformers' auto class for a model.

    Args:
        config: transformers' configuration of it.
    """
    import transformers

    architecture = (getattr(config, "architectures", None) or [""])[0]
    return getattr(transformers, auto_class_name(str(architecture)))
