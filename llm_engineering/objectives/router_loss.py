"""The auxiliary loss of a mixture's router: as the family's own code computes it, or not at all.

trl adds it wherever a configuration has a coefficient for it, and takes it of the model's output; some
families (Llama 4) have the coefficient and compute nothing.
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
    computed = any(field.name == "aux_loss" for kind in kinds for field in dataclasses.fields(kind))
    return {} if computed or not kinds else {"router_aux_loss_coef": 0.0}
