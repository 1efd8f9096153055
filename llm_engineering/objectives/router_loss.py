"""The auxiliary loss of a mixture's router: as the family's own code computes it, or not at all.

trl adds it wherever a configuration has a coefficient for it, and takes it of the model's output. Some
families have the coefficient, and code that computes nothing (Llama 4), or that never records the
router's logits and dies of it (Granite, transformers 5.17).
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, get_args


def router_loss_arguments(model: Any) -> dict[str, Any]:
    """What trl's arguments need beside the rest: nothing, or that there is no such loss.

    Args:
        model: A PEFT model.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config()
    if not getattr(config, "router_aux_loss_coef", None):
        return {}
    returned = inspect.signature(type(base).forward).return_annotation
    kinds = [kind for kind in (returned, *get_args(returned)) if dataclasses.is_dataclass(kind)]
    told = any(field.name == "aux_loss" for kind in kinds for field in dataclasses.fields(kind))
    return {} if told and _has_logits(base) else {"router_aux_loss_coef": 0.0}


def _has_logits(base: Any) -> bool:
    """Whether the text model gives its router's logits: recorded by transformers, or asked for."""
    if any(
        "router_logits" in (getattr(type(module), "_can_record_outputs", None) or {})
        for module in base.modules()
    ):
        return True
    return "output_router_logits" in inspect.signature(base.get_decoder().forward).parameters
