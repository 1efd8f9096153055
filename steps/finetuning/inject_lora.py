"""Step: inject LoRA."""

from typing import Annotated

from zenml import step

import llm_engineering.lineage.materializers  # noqa: F401  (registers how outputs are stored)
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.lineage.metadata import show
from llm_engineering.lineage.run_order import RunOrder
from llm_engineering.model.finetuning import described as descriptions
from llm_engineering.model.finetuning import inject
from llm_engineering.model.recipes import LoraRecipe, ModelRecipe


@step
def inject_lora(
    model: ModelRecipe,
    settings: LoraSettings,
    fingerprints: list[str],
    described: bool = False,
) -> Annotated[LoraRecipe, "lora_model"]:
    """Put a fresh adapter into the base model's projections, or describe what others will do."""
    order = RunOrder.of_this_run()
    if order.launch is not None:
        lora = descriptions.describe_launched_lora(model, settings)
    elif described or order.placement.ranks > 1:
        lora = inject.describe_lora(model, settings)
    else:
        lora = inject.inject_lora(model, settings)
    show(
        "adapter",
        {
            "trainable_parameters": lora.trainable_parameters,
            "total_parameters": lora.total_parameters,
            "trainable_share": lora.trainable_share,
            "adapted_modules": sum(target.modules for target in lora.matched),
            "lora_scaling": lora.scaling,
        },
    )
    return lora
