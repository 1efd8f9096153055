"""Inject LoRA: adapters into the base model's projections, by this process's backend."""

from __future__ import annotations

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
from llm_engineering.model.finetuning.targets import adapter_targets
from llm_engineering.model.finetuning.trainable_tokens import require_wrapped
from llm_engineering.model.recipes import AdapterTargets, LoraRecipe, MatchedTarget, ModelRecipe


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
    described = describe_lora(recipe, settings)
    loaded = live_base_model(recipe)
    options = peft_options(settings, described.targets)
    model = backend().add_adapter(loaded.model, settings, options)
    lora = _recipe(recipe, settings, described.targets, model)
    _require_as_described(model, lora, described)
    live.keep(lora.digest, live.LiveModel(model, loaded.tokenizer))
    return lora


def describe_lora(recipe: ModelRecipe, settings: LoraSettings) -> LoraRecipe:
    """The recipe that ``inject_lora`` will return, by PEFT's own matching on the meta device.

    Args:
        recipe: The base model's.
        settings: The adapter.

    Raises:
        LoraError: A target matches no module, or the model cannot take these settings.
    """
    base = meta_model(recipe.settings)
    targets = adapter_targets(base, recipe.settings, settings)
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**peft_options(settings, targets), task_type="CAUSAL_LM")
    with torch.device("meta"):
        model = get_peft_model(base, config)
    require_wrapped(model, targets)
    return _recipe(recipe, settings, targets, model)


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
    counts: Counter[tuple[str, int, int, int, int, float]] = Counter()
    parameters: Counter[tuple[str, int, int, int, int, float]] = Counter()
    for name, module, active in adapted_modules(model):
        rank, scaling = module.r[active], float(module.scaling[active])
        experts = getattr(module, "num_experts", 1)
        key = (
            _name_of_target(name, module), experts, module.in_features, module.out_features,
            rank, scaling,
        )  # fmt: skip
        counts[key] += 1
        for part in ("lora_A", "lora_B", "lora_magnitude_vector"):
            held = getattr(module, part)
            if active in held:  # not by named_parameters: one wrapper may be within another
                parameters[key] += sum(p.numel() for p in held[active].parameters())
    return [
        MatchedTarget(
            name=name, modules=count, experts=experts, d_in=d_in, d_out=d_out, rank=rank,
            scaling=scaling, adapter_parameters=parameters[name, experts, d_in, d_out, rank, scaling],
        )
        for (name, experts, d_in, d_out, rank, scaling), count in counts.items()
    ]  # fmt: skip


def _name_of_target(name: str, module: Any) -> str:
    """The last part of a module's name; of a parameter, with its module's, unless that is linear."""
    last = name.replace(".base_layer", "").rpartition(".")[2]
    parameter = getattr(module, "parameter_name", "weight")
    return last if parameter == "weight" else f"{last}.{parameter}"


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


def _recipe(
    recipe: ModelRecipe, settings: LoraSettings, targets: AdapterTargets, model: Any
) -> LoraRecipe:
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    matched = tuple(matched_targets(model))
    return LoraRecipe(
        model=recipe,
        settings=settings,
        targets=targets,
        matched=matched,
        trainable_parameters=trainable,
        total_parameters=count_parameters(model),
        scaling=usual_scaling(matched, settings),
    )


def _require_as_described(model: Any, lora: LoraRecipe, described: LoraRecipe) -> None:
    """Check that the loaded model took the adapter that the meta model did: nothing was passed over.

    Raises:
        LoraError: It did not, for instance since it was loaded with its experts in another form.
    """
    require_wrapped(model, described.targets)
    ours, theirs = (
        {(one.name, one.d_in, one.d_out): one.modules * one.experts for one in each.matched}
        for each in (lora, described)
    )
    if ours != theirs:
        wrong = sorted(ours.items() ^ theirs.items())
        raise LoraError(
            f"lora.target_modules: the loaded model has other projections than its configuration "
            f"says, as {wrong[0][0][0]}; name those that it has"
        )


def peft_options(settings: LoraSettings, targets: AdapterTargets) -> dict[str, Any]:
    """The settings that are PEFT's own (``peft.LoraConfig``), under its names."""
    ours = {"random_state", "init", "target_modules", "trainable_tokens"}
    options = settings.model_dump(exclude=ours)
    options["init_lora_weights"] = INITIALISATIONS[settings.init].peft_option
    options["target_modules"] = list(targets.modules)
    if targets.exclude is not None:
        options["exclude_modules"] = targets.exclude
    if targets.experts or targets.parameters:  # [] tells unsloth to leave the experts alone
        options["target_parameters"] = list(targets.parameters)
    if targets.token_rows:
        rows = {name: list(ids) for name, ids in targets.token_rows.items()}
        options["trainable_token_indices"] = rows
    return options
