"""What ``--dry-run`` says of the adapter: the projections that receive one, found without a weight."""

from __future__ import annotations

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.errors import LoraError, ModelError, SetupError
from llm_engineering.training_stack import require_training_stack


def adapter_plan(config: FinetuningConfig) -> list[str]:
    """The chosen targets, or why they are not known here."""
    try:
        require_training_stack()
        from llm_engineering.model.base_model import model_folder
        from llm_engineering.model.finetuning.preflight import describe_targets
        from llm_engineering.model.finetuning.targets import adapter_targets
        from llm_engineering.model.meta import meta_model

        model = meta_model(
            model_folder(config.model, weights=False),
            trust_remote_code=config.model.trust_remote_code,
        )
        targets = adapter_targets(model, config.model, config.lora)
    except (ModelError, SetupError) as reason:
        return [f"# adapter: targets not known here ({reason})"]
    except LoraError as reason:
        return ["# adapter", f"  this run would be refused: {reason}"]
    lines = describe_targets(targets, config.lora.trainable_tokens)
    return ["# adapter", *(f"  {line}" for line in lines)]
