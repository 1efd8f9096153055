"""Describing a model and its adapter from files alone: no PyTorch, as on a host that only launches.

``load.describe_model`` and ``inject.describe_lora`` ask PyTorch for a model's modules, on the meta
device. Here they are told by the headers of the weight files: in a decoder each matrix that is no
embedding is a linear module of that name, and those of experts are joined as ``stored_experts`` knows.
Where that is not certain (other mixtures, quantised files, a model's own code ...) nothing is guessed:
PyTorch is asked if it is here, else the model is refused by name. The job makes its own recipe from the
real model, and a difference is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_engineering.configuration.lora import HANDBOOK_TARGET_MODULES, LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ModelError
from llm_engineering.model.base_model import model_folder, read_config
from llm_engineering.model.finetuning.inject import describe_lora, usual_scaling
from llm_engineering.model.finetuning.load import describe_model, recipe_of
from llm_engineering.model.finetuning.stored_experts import JoinedExperts, Mixture, join_experts
from llm_engineering.model.finetuning.targets import (
    named_targets,
    require_no_biases,
    require_patterns,
    require_settings_for_parameters,
)
from llm_engineering.model.finetuning.trainable_tokens import token_ids
from llm_engineering.model.recipes import AdapterTargets, LoraRecipe, MatchedTarget, ModelRecipe
from llm_engineering.model.weight_headers import StoredTensor, weight_headers
from llm_engineering.training_stack import has_pytorch

_FLOATS = {"F16", "BF16", "F32", "F64"}
_EMBEDDING = re.compile(r"emb|^w[tp]e$")
_HEADS = ("lm_head", "embed_out")
"""Names of output heads, which no adapter takes."""
_NOT_PARAMETERS = re.compile(r"(inv_freq|masked_bias)$")
"""Buffers that older checkpoints hold."""
_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
# Their layers are transformers' Conv1D, whose matrix is stored the other way round.
_CONV1D = {"gpt2", "openai-gpt"}
# PEFT refuses some of their linear modules.
_STATE_SPACE = re.compile(r"mamba|falcon_h1|jamba|bamba|zamba|rwkv|granitemoehybrid")


@dataclass(frozen=True)
class Outline:
    """What the headers of a model's weight files tell of its modules."""

    linears: dict[str, tuple[int, int]]
    """Input and output features of each linear module by its full name, in the usual order."""
    biases: dict[str, int]
    """Size of each parameter whose name has "bias" in it, by that name."""
    embeddings: dict[str, tuple[int, int]]
    """Rows and width of the embeddings, and of an output layer that is not tied to them; empty: unknown."""
    parameters: int
    experts: dict[str, JoinedExperts] = field(default_factory=dict)
    """The parameters of a mixture's experts by their full names."""

    @property
    def expert_count(self) -> int:
        """Experts of a layer; 0: it is no mixture."""
        return max((each.experts for each in self.experts.values()), default=0)

    @property
    def inside(self) -> list[str]:
        """The linear modules of layers: no others carry an adapter."""
        return [name for name in self.linears if _layer_of(f"{name}.") >= 0]

    def is_router(self, name: str) -> bool:
        """Whether a linear module beside experts has an output for each of them, or one for all."""
        parent = name.rpartition(".")[0]
        blocks = {each.rpartition(".experts.")[0] for each in self.experts}
        is_beside = parent in blocks or parent.rpartition(".")[0] in blocks
        return is_beside and self.linears[name][1] in (1, self.expert_count)

    def listed(self) -> str:
        """What can carry an adapter, in words."""
        experts = (".".join(name.split(".")[-2:]) for name in self.experts)
        names = Counter([*(name.rsplit(".", 1)[-1] for name in self.inside), *experts])
        return ", ".join(f"{name} ({count})" for name, count in names.items())


@dataclass(frozen=True)
class _Chosen:
    """What carries an adapter, by full name."""

    modules: list[str]
    parameters: list[str]


def describe_launched_model(
    settings: ModelSettings, *, dtype: str, tokens: Sequence[str] = ()
) -> ModelRecipe:
    """The recipe of a base model that a job will load, in ``dtype``, with a tokenizer of these tokens.

    Raises:
        ModelError: It cannot be had; or its files do not tell its modules, and PyTorch is not here.
    """
    outline = _outline_or_torch(settings)
    if outline is None:
        return describe_model(settings, dtype=dtype, tokens=tokens)
    return recipe_of(settings, dtype=dtype, parameters=outline.parameters, tokens=tokens)


def describe_launched_lora(recipe: ModelRecipe, settings: LoraSettings) -> LoraRecipe:
    """The recipe of a base model with a fresh adapter that a job will train.

    Raises:
        LoraError: A target or a pattern matches no module.
        ModelError: As ``describe_launched_model``.
    """
    outline = _outline_or_torch(recipe.settings)
    if outline is None:
        return describe_lora(recipe, settings)
    if settings.trainable_tokens and not outline.embeddings:
        if has_pytorch():
            return describe_lora(recipe, settings)
        raise ModelError(
            f"lora.trainable_tokens: which matrices of {recipe.id} hold the tokens' rows is not told by its "
            "files, and PyTorch, which could tell, is not installed here: run `make setup` on this host"
        )
    chosen = _choose(outline, settings)
    if _shares_a_name(outline, chosen):
        problem = f"others have the names that lora.target_modules gives: {settings.target_modules}"
        _require_pytorch(recipe.settings, problem)
        return describe_lora(recipe, settings)
    return _recipe(recipe, settings, outline, chosen)


def check_launched_adapter(model: ModelSettings, lora: LoraSettings) -> None:
    """Check that a launch can tell the adapter, before its run begins.

    Raises:
        LoraError, ModelError: As ``describe_launched_lora``.
    """
    outline = _outline_or_torch(model)
    if outline is not None:
        _choose(outline, lora)


def outline_of(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> Outline | str:
    """A model's outline; a sentence that says why it cannot be told where it cannot.

    Args:
        config: Its config.json.
        tensors: The headers of its weight files.
    """
    text = config.get("text_config")
    if isinstance(text, dict):
        config = {**config, **text}
    layers = config.get("num_hidden_layers")
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        # Layers beyond the last are for predicting further tokens, and are not loaded.
        if not _NOT_PARAMETERS.search(name)
        and not (isinstance(layers, int) and _layer_of(name) >= layers)
    }
    problem = _problem(config, kept)
    if problem is not None:
        return problem
    mixture = Mixture(kept, {})
    if _is_mixture(config):
        found = join_experts(config, kept)
        if isinstance(found, str):
            return found
        mixture = found
    vocabulary = config.get("vocab_size")
    total = sum(tensor.size for tensor in kept.values())
    linears = {}
    embeddings: dict[str, tuple[int, int]] = {}
    for name, tensor in sorted(mixture.others.items(), key=lambda item: _order(item[0])):
        module, _, kind = name.rpartition(".")
        last = module.rsplit(".", 1)[-1]
        is_head = last in _HEADS and tensor.shape[:1] == (vocabulary,)
        if is_head and kind == "weight" and config.get("tie_word_embeddings"):
            total -= tensor.size  # stored although it is the input embeddings
            continue
        if kind == "weight" and (is_head or last == "embed_tokens"):
            embeddings[module] = (tensor.shape[0], tensor.shape[1])
        if kind == "weight" and len(tensor.shape) == 2 and not _EMBEDDING.search(last):
            linears[module] = (tensor.shape[1], tensor.shape[0])
    biases = {name: tensor.size for name, tensor in kept.items() if "bias" in name}
    known = {module.rsplit(".", 1)[-1] for module in embeddings}
    if len(known) < len(embeddings) or "embed_tokens" not in known or "lm_head.bias" in biases:
        embeddings = {}
    return Outline(linears, biases, embeddings, total, mixture.experts)


def _outline_or_torch(settings: ModelSettings) -> Outline | None:
    """The outline; None where it cannot be told and PyTorch is here to be asked."""
    config = read_config(model_folder(settings, weights=False))
    found: Outline | str = (
        "it brings code of its own (model.trust_remote_code)"
        if settings.trust_remote_code
        else outline_of(config, weight_headers(settings))
    )
    if isinstance(found, Outline):
        return found
    _require_pytorch(settings, found)
    return None


def _require_pytorch(settings: ModelSettings, why: str) -> None:
    """Refuse a model of which files do not tell enough, where PyTorch is not here to be asked."""
    if not has_pytorch():
        raise ModelError(
            f"model.id: which modules of {settings.id} an adapter can take is not told by its files "
            f"({why}), and PyTorch, which could tell, is not installed here: run `make setup` on this "
            "host, and then the same command"
        )


def _is_mixture(config: Mapping[str, Any]) -> bool:
    return any(
        "expert" in key and isinstance(value, int) and value for key, value in config.items()
    )


def _problem(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> str | None:
    kind = str(config.get("model_type"))
    types = sorted({tensor.dtype for tensor in tensors.values()} - _FLOATS)
    if types or config.get("quantization_config"):
        return f"its weights are quantised: {', '.join(types) or 'config.json says so'}"
    if config.get("vision_config") or config.get("audio_config"):
        return "it takes more than text"
    if kind in _CONV1D:
        return f"{kind} keeps its projections in another form"
    if _STATE_SPACE.search(kind):
        return f"{kind} has state-space layers"
    return None


def _recipe(
    recipe: ModelRecipe, settings: LoraSettings, outline: Outline, chosen: _Chosen
) -> LoraRecipe:
    counts: Counter[tuple[str, int, int, int, int, float]] = Counter()
    for name in [*chosen.modules, *chosen.parameters]:
        rank = settings.rank_pattern.get(_pattern(settings.rank_pattern, name), settings.r)
        alpha = settings.alpha_pattern.get(
            _pattern(settings.alpha_pattern, name), settings.lora_alpha
        )
        scaling = alpha / (rank**0.5 if settings.use_rslora else rank)
        if name in outline.experts:
            last, (experts, d_in, d_out) = _last_two(name), outline.experts[name]
        else:
            last, experts, (d_in, d_out) = name.rsplit(".", 1)[-1], 1, outline.linears[name]
        counts[last, experts, d_in, d_out, rank, scaling] += 1
    matched = tuple(
        MatchedTarget(
            name=name, modules=count, experts=experts, d_in=d_in, d_out=d_out, rank=rank,
            scaling=scaling, adapter_parameters=count
            * (experts * rank * (d_in + d_out) + (d_out if settings.use_dora else 0)),
        )
        for (name, experts, d_in, d_out, rank, scaling), count in counts.items()
    )  # fmt: skip
    rows = _token_rows(recipe, settings, outline)
    adapter = sum(each.adapter_parameters for each in matched)
    adapter += sum(len(ids) * outline.embeddings[module][1] for module, ids in rows.items())
    return LoraRecipe(
        model=recipe,
        settings=settings,
        targets=AdapterTargets(
            modules=_in_order(chosen.modules),
            parameters=tuple(dict.fromkeys(_last_two(name) for name in chosen.parameters)),
            experts=outline.expert_count,
            frozen_experts=bool(outline.experts) and not chosen.parameters,
            token_rows=rows,
        ),
        matched=matched,
        trainable_parameters=adapter + _trained_biases(outline, settings, chosen.modules),
        total_parameters=outline.parameters + adapter,
        scaling=usual_scaling(matched, settings),
    )


def _token_rows(
    recipe: ModelRecipe, settings: LoraSettings, outline: Outline
) -> dict[str, tuple[int, ...]]:
    """As ``trainable_tokens.token_rows``."""
    if not settings.trainable_tokens:
        return {}
    ids = token_ids(
        recipe.settings,
        settings.trainable_tokens,
        min(rows for rows, _ in outline.embeddings.values()),
    )
    return dict.fromkeys(sorted(outline.embeddings, key=lambda one: one == "lm_head"), ids)


def _choose(outline: Outline, settings: LoraSettings) -> _Chosen:
    """What carries an adapter, as ``choose_targets`` finds it.

    Raises:
        LoraError: As there.
    """
    if isinstance(settings.target_modules, list):
        modules, parameters = named_targets(
            settings.target_modules, outline.inside, outline.experts, outline.listed()
        )
    else:
        modules = [name for name in outline.inside if not outline.is_router(name)]
        parameters = list(outline.experts) if settings.target_modules == "auto" else []
    require_patterns(settings, [*modules, *parameters])
    require_settings_for_parameters(settings, parameters)
    if outline.experts:
        require_no_biases(settings, "a mixture's router")
    return _Chosen(list(dict.fromkeys(modules)), list(dict.fromkeys(parameters)))


def _shares_a_name(outline: Outline, chosen: _Chosen) -> bool:
    """Whether modules that carry no adapter have the last name of one that does: PEFT is told by those."""
    taken = set(chosen.modules)
    names = {name.rsplit(".", 1)[-1] for name in taken}
    return any(name.rsplit(".", 1)[-1] in names for name in outline.linears if name not in taken)


def _last_two(name: str) -> str:
    """What of an expert parameter's name says which it is: experts.down_proj."""
    return ".".join(name.split(".")[-2:])


def _in_order(adapted: Iterable[str]) -> tuple[str, ...]:
    """Last names, the handbook's first, as ``choose_targets`` has them."""
    found = dict.fromkeys(name.rsplit(".", 1)[-1] for name in adapted)
    return tuple(dict.fromkeys([*(one for one in HANDBOOK_TARGET_MODULES if one in found), *found]))


def _trained_biases(outline: Outline, settings: LoraSettings, adapted: Iterable[str]) -> int:
    """Values of the biases that train (``peft.LoraConfig.bias``)."""
    if settings.bias == "none":
        return 0
    if settings.bias == "all":
        return sum(outline.biases.values())
    return sum(outline.biases.get(f"{name}.bias", 0) for name in adapted)


def _pattern(patterns: Iterable[str], name: str) -> str:
    """The first pattern that matches a module's name, as PEFT chooses it; else the name."""
    return next((each for each in patterns if re.match(rf"(.*\.)?({each})$", name)), name)


def _layer_of(name: str) -> int:
    found = _LAYER.search(f".{name}")
    return int(found[1]) if found else -1


def _order(name: str) -> tuple[Any, ...]:
    """Layer by layer, and in a layer in the order that models have: files are sorted by name."""
    usual = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    last = name.rpartition(".")[0].rsplit(".", 1)[-1]
    return (
        _layer_of(name),
        usual.index(last) if last in HANDBOOK_TARGET_MODULES else len(usual),
        name,
    )
