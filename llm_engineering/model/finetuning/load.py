"""Load model: the base model into memory, by this process's backend."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ModelError
from llm_engineering.model import live
from llm_engineering.model.base_model import (
    model_folder,
    original_folder,
    read_config,
    require_positions,
    weight_digests,
    weight_files,
)
from llm_engineering.model.finetuning.backend import backend
from llm_engineering.model.finetuning.learned_tokens import require_learned_tokens
from llm_engineering.model.meta import meta_model as meta_model_of
from llm_engineering.model.recipes import ModelRecipe
from llm_engineering.model.rope_scaling import require_stretched
from llm_engineering.model.stored_quantisation import require_readable_weights
from llm_engineering.model.tokenizer import load_tokenizer, stop_token_ids
from llm_engineering.planning.hardware import resolve_dtype
from llm_engineering.training_stack import import_unsloth

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def load_model(settings: ModelSettings, tokens: Sequence[str] = ()) -> ModelRecipe:
    """Load the base model and hold it in this process.

    Args:
        settings: Names it.
        tokens: ``lora.trainable_tokens``.

    Returns:
        The recipe from which ``live_base_model`` can build the same model elsewhere.

    Raises:
        ModelError: The model cannot be found or is incomplete, was made for shorter rows, is quantised
            on disk in a way that cannot be read, or never learned a token that the chat template writes.
        HardwareError: This host cannot hold it in the configured type.
    """
    require_positions(settings)
    require_readable_weights(settings)
    folder = model_folder(settings, weights=True)
    dtype = resolve_dtype(settings)
    digests = weight_digests(settings)
    tokenizer = load_tokenizer(settings, tokens=tokens)
    require_learned_tokens(settings, tokenizer, weight_files(folder), tokens)
    model = backend().load(folder, settings, dtype)
    require_stretched(model, settings)
    recipe = _recipe(settings, dtype, digests, tokenizer, tokens, count_parameters(model))
    live.keep(recipe.digest, live.LiveModel(model, tokenizer))
    return recipe


def describe_model(
    settings: ModelSettings, *, dtype: str, tokens: Sequence[str] = ()
) -> ModelRecipe:
    """The recipe that ``load_model`` will return on a host that computes in ``dtype``.

    Needs configuration and tokenizer only, no weights: what a launch checks before it pays.

    Raises:
        ModelError: As ``load_model``.
    """
    require_positions(settings)  # before PyTorch is imported
    model = meta_model(settings)
    require_stretched(model, settings)
    return recipe_of(settings, dtype=dtype, parameters=count_parameters(model), tokens=tokens)


def recipe_of(
    settings: ModelSettings, *, dtype: str, parameters: int, tokens: Sequence[str] = ()
) -> ModelRecipe:
    """The recipe of a model of so many parameters, by its configuration and its tokenizer.

    Raises:
        ModelError: It was made for shorter rows, or its tokenizer or digests cannot be had.
    """
    require_positions(settings)
    require_readable_weights(settings)
    tokenizer = load_tokenizer(settings, tokens=tokens)
    return _recipe(settings, dtype, weight_digests(settings), tokenizer, tokens, parameters)


def meta_model(settings: ModelSettings) -> Any:
    """The model's modules on PyTorch's meta device: names and shapes without memory."""
    import_unsloth()
    folder = model_folder(settings, weights=False)
    return meta_model_of(folder, trust_remote_code=settings.trust_remote_code)


def live_base_model(recipe: ModelRecipe) -> live.LiveModel:
    """The base model of a recipe: the one that this process has, else loaded again.

    Raises:
        ModelError: The weight files are no longer those that the recipe names.
    """
    found = live.find(recipe.digest)
    if found is not None:
        return found
    settings = recipe.settings
    folder = model_folder(settings, weights=True)
    digests = weight_digests(settings)
    if digests != recipe.weight_digests:
        raise ModelError(
            f"model.id: the weight files of {recipe.id} have changed since this run loaded "
            f"them ({', '.join(sorted(digests))}); start a new run"
        )
    tokenizer = load_tokenizer(
        settings, tokens=recipe.trainable_tokens, template=recipe.chat_template
    )
    logger.info("loading %s again: this process does not hold it", recipe.id)
    loaded = live.LiveModel(backend().load(folder, settings, recipe.dtype), tokenizer)
    live.keep(recipe.digest, loaded)
    return loaded


def count_parameters(model: Any) -> int:
    """Parameters of a model, tied ones once and 4-bit ones unpacked."""
    total = 0
    for parameter in model.parameters():
        quantised = getattr(parameter, "quant_state", None)
        total += quantised.shape.numel() if quantised is not None else parameter.numel()
    return total


def _recipe(
    settings: ModelSettings,
    dtype: str,
    digests: dict[str, str],
    tokenizer: PreTrainedTokenizerBase,
    tokens: Sequence[str],
    parameters: int,
) -> ModelRecipe:
    folder = original_folder(settings, weights=False)
    return ModelRecipe(
        id=settings.id,
        revision=folder.name if folder.parent.name == "snapshots" else settings.revision,
        architecture=(read_config(folder).get("architectures") or ["unknown"])[0],
        dtype=dtype,
        quantisation=settings.quantisation,
        max_seq_length=settings.max_seq_length,
        rope_scaling=settings.rope_scaling,
        chat_template=str(tokenizer.chat_template),
        eos_token=settings.eos_token,
        trainable_tokens=tuple(tokens),
        stop_ids=tuple(sorted(stop_token_ids(settings, tokenizer))),
        trust_remote_code=settings.trust_remote_code,
        weight_digests=digests,
        parameters=parameters,
    )
