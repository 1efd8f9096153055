"""What a wrong setting for a model of 70 billion costs: two seconds, since no weight is read for it.

Targets, patterns, names in the files and tokens are checked on the model's modules without memory, in
the command and before anything is prepared or paid for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ExportError, ModelError
from llm_engineering.model.adapted_parameters import adapted_parameters
from llm_engineering.model.base_model import (
    model_folder,
    require_positions,
    weight_files,
    weight_names,
)
from llm_engineering.model.file_tensors import is_converted, names_in_files, require_in_files
from llm_engineering.model.finetuning.inject import peft_options
from llm_engineering.model.finetuning.learned_tokens import require_learned_tokens
from llm_engineering.model.finetuning.load import meta_model
from llm_engineering.model.finetuning.packing import require_packable
from llm_engineering.model.finetuning.targets import adapter_targets
from llm_engineering.model.recipes import AdapterTargets
from llm_engineering.model.stored_quantisation import require_readable_weights
from llm_engineering.model.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)


def check_adapter(config: FinetuningConfig) -> AdapterTargets:
    """Check that the configured adapter fits the model, and say what receives it.

    Raises:
        LoraError: A target or a pattern matches nothing, or settings do not go with this model.
        ModelError: Rows are longer than its positions, its files lack what the adapter changes, the
            loss cannot be computed of it, or it never learned a token that the chat template writes.
        ConfigError: Rows cannot be packed in this model.
        ExportError: A GGUF of it could not be read back.
    """
    from peft import LoraConfig

    require_positions(config.model)
    require_readable_weights(config.model)
    model = meta_model(config.model)
    require_hidden_states(model)
    _require_learned_tokens(config)
    if config.train.packing:
        require_packable(model)
    targets = adapter_targets(model, config.model, config.lora)
    names = names_in_files(model_folder(config.model, weights=False))
    if config.export.gguf:
        require_gguf(model, names or [], targets)
    if names is not None:
        wrapped = LoraConfig(**peft_options(config.lora, targets), task_type="CAUSAL_LM")
        adapted = adapted_parameters(meta_model(config.model), wrapped)
        require_in_files(model, adapted.parameters, names)
    for line in describe_targets(targets, config.lora.trainable_tokens):
        logger.info("%s", line)
    return targets


def _require_learned_tokens(config: FinetuningConfig) -> None:
    """As ``require_learned_tokens``; where the weights are not here yet, those who load them look."""
    folder = model_folder(config.model, weights=False)
    names = weight_names(folder)
    if not names or not all((folder / name).is_file() for name in names):
        return
    tokens = config.lora.trainable_tokens
    tokenizer = load_tokenizer(config.model, tokens=tokens)
    require_learned_tokens(config.model, tokenizer, weight_files(folder), tokens)


def require_hidden_states(model: Any) -> None:
    """Check that the model has layers below its head, which trl's loss asks for hidden states.

    In Llama 4 what transformers calls the base model has a head of its own (transformers 5.17).

    Args:
        model: On the meta device.

    Raises:
        ModelError: It has none.
    """
    if model.base_model is model or model.base_model.get_output_embeddings() is not None:
        raise ModelError(
            f"model.id: {type(model).__name__} gives no hidden states below its head, of which the "
            "loss is computed; fine-tune a model of another family (docs/models.md)"
        )


def require_gguf(model: Any, names: Sequence[str], targets: AdapterTargets) -> None:
    """Check that a GGUF of this model could be proven: read back by transformers, tensor by tensor.

    Args:
        model: On the meta device.
        names: Of the tensors in its files; empty: not known yet.
        targets: Say whether it is a mixture.

    Raises:
        ExportError: It could not be.
    """
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    family = model.config.model_type
    reason = None
    if family.removesuffix("_text") not in GGUF_SUPPORTED_ARCHITECTURES:
        reason = f"transformers reads no GGUF of {family}, so it could not be proven"
    elif targets.experts or is_converted(model, names):
        reason = f"a GGUF of {family} holds its tensors in another form than its files"
    if reason:
        raise ExportError(
            f"export.gguf: {reason}; leave it out, and convert the merged model "
            "(export.merged_16bit) with llama.cpp yourself"
        )


def describe_targets(targets: AdapterTargets, tokens: Sequence[str]) -> list[str]:
    """What receives an adapter and what does not, in lines for a person.

    Args:
        targets: What is chosen.
        tokens: Those that train.
    """
    names = [*targets.modules, *(name.removesuffix(".weight") for name in targets.parameters)]
    lines = [f"adapters on {', '.join(names)}"]
    if targets.token_rows:
        matrices = " and ".join(targets.token_rows)
        lines.append(f"trained tokens, each a row of {matrices}: {' '.join(tokens)}")
    if targets.experts:
        lines.append(
            f"a mixture of {targets.experts} experts a layer: the router"
            + (" and the experts are" if targets.frozen_experts else " is")
            + " frozen"
        )
    if targets.exclude:
        lines.append(f"not adapted, though of these names: {targets.exclude}")
    lines += [f"{name} has no adapter: {why}" for name, why in targets.left_out.items()]
    return lines
