"""Inject LoRA: adapters into the base model's projections, by this process's backend."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.errors import LoraError
from llm_engineering.initialisations import INITIALISATIONS
from llm_engineering.initialisations.adapted_modules import adapted_modules
from llm_engineering.model import live
from llm_engineering.model.finetuning.backend import backend
from llm_engineering.model.finetuning.load import (
    count_parameters,
    live_base_model,
    meta_model,
)
from llm_engineering.model.recipes import LoraRecipe, MatchedTarget, ModelRecipe


def inject_lora(recipe: ModelRecipe, settings: LoraSettings) -> LoraRecipe:
    """Put a fresh adapter into the base model and hold the result in this process.

    The base model's projections are replaced in place; what the backend returns is PEFT's wrapper
    around it, and only adapter parameters (and biases, if ``bias`` says so) are trainable.
    ``B`` starts at zero, so the output is unchanged: ``h = W x + scaling * B A x``
    (LoRA, arXiv 2106.09685, section 4.1).

    Returns:
        The recipe, with what was matched; from it ``live_lora_model`` builds the same model,
        to the bit, since the initialisation is seeded.

    Raises:
        LoraError: A target matches no module, or the model cannot take these settings.
    """
    loaded = live_base_model(recipe)
    _require_modules(loaded.model, settings)
    model = backend().add_adapter(loaded.model, settings, _peft_options(settings))
    lora = _recipe(recipe, settings, model)
    live.keep(lora.digest, live.LiveModel(model, loaded.tokenizer))
    return lora


def describe_lora(recipe: ModelRecipe, settings: LoraSettings) -> LoraRecipe:
    """The recipe that ``inject_lora`` will return, by PEFT's own matching on the meta device.

    Args:
        recipe: The base model's.
        settings: The adapter.

    Raises:
        LoraError: A target matches no module.
    """
    base = meta_model(recipe.settings)
    _require_modules(base, settings)
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**_peft_options(settings), task_type="CAUSAL_LM")
    with torch.device("meta"):
        model = get_peft_model(base, config)
    return _recipe(recipe, settings, model)


def live_lora_model(recipe: LoraRecipe) -> live.LiveModel:
    """The base model with its fresh adapter: the one that this process has, else built again.

    Raises:
        LoraError: What was built is not what the recipe describes.
    """
    found = live.find(recipe.digest)
    if found is not None:
        return found
    rebuilt = inject_lora(recipe.model, recipe.settings)
    found = live.find(rebuilt.digest)
    if rebuilt != recipe or found is None:
        raise LoraError(
            f"lora: {recipe.model.id} no longer gives the adapter that this run injected; "
            "start a new run"
        )
    return found


def matched_targets(model: Any) -> list[MatchedTarget]:
    """What carries an adapter in a PEFT model, by name, shape and rank, in the model's order."""
    counts: Counter[tuple[str, int, int, int, float]] = Counter()
    parameters: Counter[tuple[str, int, int, int, float]] = Counter()
    for name, module, active in adapted_modules(model):
        rank, scaling = module.r[active], float(module.scaling[active])
        last = name.rsplit(".", 1)[-1]
        key = (last, module.in_features, module.out_features, rank, scaling)
        counts[key] += 1
        parameters[key] += sum(
            p.numel() for n, p in module.named_parameters() if "lora_" in n and p.requires_grad
        )
    return [
        MatchedTarget(
            name=name, modules=count, d_in=d_in, d_out=d_out, rank=rank, scaling=scaling,
            adapter_parameters=parameters[name, d_in, d_out, rank, scaling],
        )
        for (name, d_in, d_out, rank, scaling), count in counts.items()
    ]  # fmt: skip


def usual_scaling(targets: Sequence[MatchedTarget], settings: LoraSettings) -> float:
    """The factor that most adapted modules put on ``B A x``.

    Raises:
        LoraError: They differ although no pattern says so.
    """
    scalings: Counter[float] = Counter()
    for target in targets:
        scalings[target.scaling or 0.0] += target.modules
    if len(scalings) != 1 and not (settings.rank_pattern or settings.alpha_pattern):
        raise LoraError(f"lora: expected one scaling for all modules, found {sorted(scalings)}")
    return scalings.most_common(1)[0][0]


def linear_names(model: Any) -> Counter[str]:
    """Last names of the model's linear modules, with how many there are of each."""
    import torch

    return Counter(
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    )


def _recipe(recipe: ModelRecipe, settings: LoraSettings, model: Any) -> LoraRecipe:
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    matched = tuple(matched_targets(model))
    return LoraRecipe(
        model=recipe,
        settings=settings,
        matched=matched,
        trainable_parameters=trainable,
        total_parameters=count_parameters(model),
        scaling=usual_scaling(matched, settings),
    )


def require_targets(known: Counter[str], settings: LoraSettings) -> None:
    """Check that each target names a linear module.

    Args:
        known: Last names of the model's linear modules, with how many there are of each.
        settings: The adapter.

    Raises:
        LoraError: One matches none, or is the output head.
    """
    if settings.target_modules == "all-linear":
        return
    unmatched = [name for name in settings.target_modules if name not in known]
    if unmatched:
        listed = ", ".join(f"{name} ({count})" for name, count in known.items())
        raise LoraError(
            f"lora.target_modules: {', '.join(unmatched)} matches no linear module of this model; "
            f"it has {listed}"
        )
    if "lm_head" in settings.target_modules:
        raise LoraError(
            "lora.target_modules: lm_head would not be trained as an adapter (trl computes the "
            "loss from its weight directly); remove it"
        )


def require_patterns(names: Sequence[str], settings: LoraSettings) -> None:
    """PEFT passes over a pattern that matches nothing; here it is an error.

    Args:
        names: Full names of the model's linear modules.
        settings: The adapter.

    Raises:
        LoraError: A pattern is no regular expression, or matches no target module.
    """
    targets = settings.target_modules
    if targets != "all-linear":
        names = [name for name in names if name.rsplit(".", 1)[-1] in targets]
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(settings, key):
            try:
                matched = any(re.match(rf"(.*\.)?({pattern})$", name) for name in names)
            except re.error as error:
                raise LoraError(
                    f"lora.{key}: {pattern!r} is no regular expression: {error}"
                ) from None
            if not matched:
                raise LoraError(
                    f"lora.{key}: {pattern!r} matches no target module; one is {names[0]}"
                )


def _require_modules(model: Any, settings: LoraSettings) -> None:
    import torch

    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    require_targets(linear_names(model), settings)
    require_patterns(names, settings)


def _peft_options(settings: LoraSettings) -> dict[str, Any]:
    """The settings that are PEFT's own (``peft.LoraConfig``), under its names."""
    options = settings.model_dump(exclude={"random_state", "init"})
    return options | {"init_lora_weights": INITIALISATIONS[settings.init].peft_option}
