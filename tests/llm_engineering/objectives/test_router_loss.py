"""The auxiliary loss of a mixture's router, as the family's own code has it."""

from __future__ import annotations

import pytest
from families.shapes import FAMILIES, REFUSED

from llm_engineering.model_class import model_class
from llm_engineering.objectives.router_loss import router_loss_arguments
from llm_engineering.training_stack import import_unsloth

BUILT = {**FAMILIES, "llama4": REFUSED}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("llama", {}),
        ("mixtral", {}),
        ("deepseek_v3", {}),
        # Its configuration has a coefficient, its code no loss, and trl would ask for it.
        ("llama4", {"router_aux_loss_coef": 0.0}),
        # Its code asks for logits that nothing records.
        ("granitemoe", {"router_aux_loss_coef": 0.0}),
    ],
)
def test_a_loss_that_the_model_does_not_compute_is_not_asked_for(
    name: str, arguments: dict[str, float]
) -> None:
    import_unsloth()
    import torch

    config = BUILT[name].configuration()
    if BUILT[name].vision:
        config.architectures = ["Llama4ForConditionalGeneration"]
    with torch.device("meta"):
        model = model_class(config).from_config(config)
    assert router_loss_arguments(model) == arguments
