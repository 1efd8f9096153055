"""Describing a model and its adapter from files alone: no PyTorch, as on a host that only launches.

``load.describe_model`` and ``inject.describe_lora`` ask PyTorch for a model's modules, on the meta
device. Here they are told by the headers of the weight files: in a dense decoder each matrix that is
no embedding is a linear module of that name. Where that is not certain (mixtures of experts, quantised
files, a model's own code ...) nothing is guessed: PyTorch is asked if it is here, else the model is
refused by name. The job makes its own recipe from the real model, and a difference is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_engineering.configuration.lora import HANDBOOK_TARGET_MODULES, LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import LoraError, ModelError
from llm_engineering.model.base_model import model_folder, read_config
from llm_engineering.model.finetuning.inject import describe_lora, usual_scaling
from llm_engineering.model.finetuning.load import describe_model, recipe_of
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

    @property
    def names(self) -> Counter[str]:
        """Last names of the linear modules, with how many there are of each."""
        return Counter(name.rsplit(".", 1)[-1] for name in self.linears)


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
    _require_targets(outline, settings)
    _require_patterns(_adapted(outline, settings), settings)
    return _recipe(recipe, settings, outline)


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
    vocabulary = config.get("vocab_size")
    linears = {}
    embeddings: dict[str, tuple[int, int]] = {}
    total = 0
    for name, tensor in sorted(kept.items(), key=lambda item: _order(item[0])):
        module, _, kind = name.rpartition(".")
        last = module.rsplit(".", 1)[-1]
        is_head = last in _HEADS and tensor.shape[:1] == (vocabulary,)
        if is_head and kind == "weight" and config.get("tie_word_embeddings"):
            continue  # stored although it is the input embeddings
        total += tensor.size
        if kind == "weight" and (is_head or last == "embed_tokens"):
            embeddings[module] = (tensor.shape[0], tensor.shape[1])
        if kind == "weight" and len(tensor.shape) == 2 and not _EMBEDDING.search(last):
            linears[module] = (tensor.shape[1], tensor.shape[0])
    biases = {name: tensor.size for name, tensor in kept.items() if "bias" in name}
    known = {module.rsplit(".", 1)[-1] for module in embeddings}
    if len(known) < len(embeddings) or "embed_tokens" not in known or "lm_head.bias" in biases:
        embeddings = {}
    return Outline(linears, biases, embeddings, total)


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
    if has_pytorch():
        return None
    raise ModelError(
        f"model.id: which modules of {settings.id} an adapter can take is not told by its files "
        f"({found}), and PyTorch, which could tell, is not installed here: run `make setup` on this "
        "host, and then the same command"
    )


def _problem(config: Mapping[str, Any], tensors: Mapping[str, StoredTensor]) -> str | None:
    kind = str(config.get("model_type"))
    types = sorted({tensor.dtype for tensor in tensors.values()} - _FLOATS)
    if types or config.get("quantization_config"):
        return f"its weights are quantised: {', '.join(types) or 'config.json says so'}"
    if config.get("vision_config") or config.get("audio_config"):
        return "it takes more than text"
    if any("expert" in key and isinstance(value, int) and value for key, value in config.items()):
        return "it is a mixture of experts"
    if kind in _CONV1D:
        return f"{kind} keeps its projections in another form"
    if _STATE_SPACE.search(kind):
        return f"{kind} has state-space layers"
    return None


def _recipe(recipe: ModelRecipe, settings: LoraSettings, outline: Outline) -> LoraRecipe:
    counts: Counter[tuple[str, int, int, int, float]] = Counter()
    parameters: Counter[tuple[str, int, int, int, float]] = Counter()
    adapted = _adapted(outline, settings)
    for name in adapted:
        d_in, d_out = outline.linears[name]
        rank = settings.rank_pattern.get(_pattern(settings.rank_pattern, name), settings.r)
        alpha = settings.alpha_pattern.get(
            _pattern(settings.alpha_pattern, name), settings.lora_alpha
        )
        scaling = alpha / (rank**0.5 if settings.use_rslora else rank)
        key = (name.rsplit(".", 1)[-1], d_in, d_out, rank, scaling)
        counts[key] += 1
        parameters[key] += rank * (d_in + d_out) + (d_out if settings.use_dora else 0)
    matched = tuple(
        MatchedTarget(
            name=name, modules=count, d_in=d_in, d_out=d_out, rank=rank, scaling=scaling,
            adapter_parameters=parameters[name, d_in, d_out, rank, scaling],
        )
        for (name, d_in, d_out, rank, scaling), count in counts.items()
    )  # fmt: skip
    rows = _token_rows(recipe, settings, outline)
    adapter = sum(parameters.values())
    adapter += sum(len(ids) * outline.embeddings[module][1] for module, ids in rows.items())
    return LoraRecipe(
        model=recipe,
        settings=settings,
        targets=AdapterTargets(modules=_in_order(adapted), token_rows=rows),
        matched=matched,
        trainable_parameters=adapter + _trained_biases(outline, settings, adapted),
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


def _adapted(outline: Outline, settings: LoraSettings) -> list[str]:
    """Names of the modules that carry an adapter: in layers alone, as ``choose_targets`` finds them."""
    inside = [name for name in outline.linears if _layer_of(f"{name}.") >= 0]
    if isinstance(settings.target_modules, str):
        return inside
    return [name for name in inside if name.rsplit(".", 1)[-1] in settings.target_modules]


def _require_targets(outline: Outline, settings: LoraSettings) -> None:
    if isinstance(settings.target_modules, str):
        return
    if "lm_head" in settings.target_modules:
        raise LoraError(
            "lora.target_modules: lm_head would not be trained as an adapter (trl computes the "
            "loss from its weight directly); remove it"
        )
    unmatched = [name for name in settings.target_modules if name not in outline.names]
    if unmatched:
        listed = ", ".join(f"{name} ({count})" for name, count in outline.names.items())
        raise LoraError(
            f"lora.target_modules: {', '.join(unmatched)} matches no linear module of this model; "
            f"it has {listed}. Set lora.target_modules: auto to take what it has"
        )


def _require_patterns(names: list[str], settings: LoraSettings) -> None:
    """PEFT passes over a pattern that matches nothing; here it is an error."""
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(settings, key):
            try:
                matched = any(_pattern([pattern], name) == pattern for name in names)
            except re.error as error:
                raise LoraError(
                    f"lora.{key}: {pattern!r} is no regular expression: {error}"
                ) from None
            if not matched:
                raise LoraError(
                    f"lora.{key}: {pattern!r} matches no target module; one is {names[0]}"
                )


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
