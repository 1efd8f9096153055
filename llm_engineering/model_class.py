"""The class of transformers that holds a base model whole, by its configuration alone."""

from __future__ import annotations

from typing import Any


def model_class(config: Any) -> Any:
    """transformers' auto class for a model's configuration.

    A checkpoint that also reads images keeps all its parts, under the names of its files, although only
    its text part is trained: what unsloth loads on a GPU, and what serves the merged model afterwards.

    Args:
        config: transformers' configuration of the model.
    """
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    architecture = (getattr(config, "architectures", None) or [""])[0]
    names = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    wanted = names if isinstance(names, tuple) else (names,)
    if any(each is not None and each.__name__ == architecture for each in wanted):
        return AutoModelForImageTextToText
    return AutoModelForCausalLM
