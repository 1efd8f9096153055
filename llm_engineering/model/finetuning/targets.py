"""Where a model's adapter goes, found from its modules on the meta device: no table of families.

``auto`` takes every projection of the text model's layers: attention and feed-forward, fused or not,
shared experts, and the experts of a mixture, which transformers holds as one parameter of three
dimensions (experts x out x in). The router stays frozen. What PEFT or a kernel cannot adapt is left out
and said. Everything outside the text model's layers (embeddings, the output layer, vision and audio
towers) is never adapted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from llm_engineering.configuration.lora import HANDBOOK_TARGET_MODULES, LoraSettings
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import LoraError
from llm_engineering.model.finetuning.trainable_tokens import token_rows
from llm_engineering.model.recipes import AdapterTargets

_PATTERNS = ("rank_pattern", "alpha_pattern")
_ITS_KERNEL = "the state-space kernel reads its weight past any adapter"
_BY_PEFT = "PEFT refuses it in a model with state-space layers"
_QUANTISED = (
    "PEFT takes its name for the experts', and can adapt it only as a parameter, which 4-bit loading "
    "packs"
)


def adapter_targets(base: Any, model: ModelSettings, lora: LoraSettings) -> AdapterTargets:
    """All that an adapter is made of in a model: ``choose_targets``, and the rows of its tokens.

    Args:
        base: The base model, on the meta device.
        model: Names it.
        lora: The adapter.

    Raises:
        LoraError: As ``choose_targets`` and ``token_rows``.
        ModelError: Tokens are named, and there is no tokenizer.
    """
    targets = choose_targets(base, lora, quantised=model.quantisation != "none")
    if not lora.trainable_tokens:
        return targets
    return targets.model_copy(update={"token_rows": token_rows(base, model, lora.trainable_tokens)})


def choose_targets(model: Any, settings: LoraSettings, *, quantised: bool) -> AdapterTargets:
    """What receives an adapter, as ``peft.LoraConfig`` wants it said.

    Args:
        model: The base model; its weights are not looked at, so that the meta device does.
        settings: ``target_modules`` is "auto", "all-linear", or names: the last parts of a linear
            module's name, or of an expert parameter's.
        quantised: Whether linear weights will be rounded to 4 or 8 bit.

    Raises:
        LoraError: A name or a pattern matches nothing, or these settings do not go with a mixture's
            experts.
    """
    found = _Found(model)
    if isinstance(settings.target_modules, list):
        modules, parameters = named_targets(
            settings.target_modules, found.linears, found.experts, found.listed()
        )
    else:
        modules = [name for name in found.linears if name not in found.routers]
        parameters = list(found.experts) if settings.target_modules == "auto" else []
    left_out = {name: why for name in modules if (why := found.obstacle(name))}
    if isinstance(settings.target_modules, list) and left_out:
        name, why = next(iter(left_out.items()))
        raise LoraError(f"lora.target_modules: {_last(name)} cannot be adapted here: {why}")
    modules = [name for name in modules if name not in left_out]
    as_parameters = _taken_for_experts(model, modules) if found.experts else []
    if quantised:
        left_out |= dict.fromkeys(as_parameters, _QUANTISED)
    else:
        parameters += [f"{name}.weight" for name in as_parameters]
    modules = [name for name in modules if name not in as_parameters]
    if not modules and not parameters:
        raise LoraError(
            f"lora.target_modules: {settings.target_modules} matches nothing that can be adapted; "
            f"this model has {found.listed()}"
        )
    require_patterns(settings, [*modules, *parameters])
    require_settings_for_parameters(settings, parameters)
    if found.expert_count or found.has_other_parts:
        what = "a mixture's router" if found.expert_count else "the parts that see or hear"
        require_no_biases(settings, what)
    every = [name for name, _ in model.named_parameters()]
    exclude = _exclude(found, modules)
    for name in modules:
        if exclude is not None and re.fullmatch(exclude, name):
            raise LoraError(
                f"lora.target_modules: {settings.target_modules} takes {name} and not the same module "
                "of every layer, which cannot be said to PEFT; leave the layer's number out"
            )
    return AdapterTargets(
        modules=_in_order(_last(name) for name in modules),
        parameters=tuple(dict.fromkeys(_suffix(name, parameters, every) for name in parameters)),
        exclude=exclude,
        frozen_experts=bool(found.experts) and not set(found.experts) & set(parameters),
        left_out={_last(name): why for name, why in left_out.items()},
        experts=found.expert_count,
    )


class _Found:
    """What can be adapted in a model, by full name."""

    def __init__(self, model: Any) -> None:
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        self._model = model
        self._modules: Mapping[str, Any] = dict(model.named_modules())
        text, layers = text_layers(model)
        self.text = text
        inside = tuple(f"{name}." for name in layers)
        self.all_linears = [
            name for name, each in self._modules.items() if isinstance(each, nn.Linear | Conv1D)
        ]
        self.linears = [name for name in self.all_linears if name.startswith(inside)]
        self.experts = {
            name: parameter.shape[0]
            for name, parameter in model.named_parameters()
            if parameter.ndim == 3 and name.startswith(inside) and self._holds_experts(name)
        }
        lists = {name: len(each) for name, each in self._modules.items()
                 if isinstance(each, nn.ModuleList) and name.startswith(inside)}  # fmt: skip
        self._choices = {  # by the block that chooses: how many experts it chooses from
            **{name.rpartition(".")[0]: count for name, count in lists.items()},
            **{name.rpartition(".")[0].rpartition(".")[0]: n for name, n in self.experts.items()},
        }
        self._has_states = any(name.endswith(".A_log") for name, _ in model.named_parameters())
        self.routers = {name for name in self.linears if self._is_router(name)}
        of_lists = [
            count
            for name, count in lists.items()
            if any(router.startswith(f"{name.rpartition('.')[0]}.") for router in self.routers)
        ]
        self.expert_count = max([*self.experts.values(), *of_lists], default=0)

    @property
    def has_other_parts(self) -> bool:
        """Whether the model has layers beside the text model's."""
        prefix = f"{self.text}." if self.text else ""
        output = getattr(self._model, "get_output_embeddings", lambda: None)()
        return any(
            not name.startswith(prefix) and self._modules[name] is not output
            for name in self.all_linears
        )

    def _holds_experts(self, parameter: str) -> bool:
        """A convolution's weight has three dimensions too."""
        owner = self._modules[parameter.rpartition(".")[0]]
        return not type(owner).__name__.startswith("Conv") and not parameter.endswith("bias")

    def _is_router(self, name: str) -> bool:
        """A linear module beside experts, with an output for each of them, or one for all."""
        parent = name.rpartition(".")[0]
        count = self._choices.get(parent) or self._choices.get(parent.rpartition(".")[0])
        return count is not None and _features(self._modules[name])[1] in (1, count)

    def obstacle(self, name: str) -> str | None:
        """Why a linear module cannot be adapted; None: it can."""
        parent, _, last = name.rpartition(".")
        own = dict(self._modules[parent].named_parameters(recurse=False))
        if "A_log" in own and "D" in own and last != "in_proj":
            return _ITS_KERNEL
        return _BY_PEFT if self._has_states and _refused_by_peft(self._model, last) else None

    def listed(self) -> str:
        names: dict[str, int] = {}
        for name in [*self.linears, *self.experts]:
            short = _last(name) if name in self._modules else ".".join(name.split(".")[-2:])
            names[short] = names.get(short, 0) + 1
        return ", ".join(f"{name} ({count})" for name, count in names.items())


def text_layers(model: Any) -> tuple[str, list[str]]:
    """The text model's name in a model, and those of its lists of layers.

    Raises:
        LoraError: There is no list of layers.
    """
    from torch import nn

    decoder = (model.get_decoder() if hasattr(model, "get_decoder") else None) or model
    text = next(name for name, each in model.named_modules() if each is decoder)
    lists = [
        f"{text}.{name}".removeprefix(".")
        for name, each in decoder.named_modules()
        if isinstance(each, nn.ModuleList)
    ]
    # A list within a layer (of experts) belongs to it.
    outer = [one for one in lists if not any(one.startswith(f"{other}.") for other in lists)]
    if not outer:
        raise LoraError(
            f"lora.target_modules: {type(model).__name__} has no list of layers, so this project does "
            "not know where an adapter belongs"
        )
    return text, outer


def named_targets(
    names: Iterable[str], linears: Iterable[str], experts: Iterable[str], listed: str
) -> tuple[list[str], list[str]]:
    """The linear modules and expert parameters that a configuration names.

    Args:
        names: As configured.
        linears: Full names of the linear modules in the text model's layers.
        experts: Full names of the parameters of experts.
        listed: What the model has, in words.

    Raises:
        LoraError: A name matches nothing.
    """
    modules: list[str] = []
    parameters: list[str] = []
    wrong = []
    for name in names:
        of_linears = [each for each in linears if each.endswith(f".{name}")]
        of_experts = [each for each in experts if each.endswith(f".{name}")]
        modules += of_linears
        parameters += of_experts if not of_linears or "." in name else []
        if not of_linears and not of_experts:
            wrong.append(name)
    if "lm_head" in wrong:
        raise LoraError(
            "lora.target_modules: lm_head would not be trained as an adapter (trl computes the "
            "loss from its weight directly); remove it"
        )
    if wrong:
        raise LoraError(
            f"lora.target_modules: {', '.join(wrong)} matches no linear module of this model; "
            f"it has {listed}. Set lora.target_modules: auto to take what it has"
        )
    return modules, parameters


def _taken_for_experts(model: Any, modules: list[str]) -> list[str]:
    """Linear modules whose names PEFT reads as those of a mixture's experts.

    Before transformers 5 an expert's projections were modules of their own, and PEFT turns their names
    into the fused parameters, of another rank; a shared expert's, or a dense layer's, are then lost.
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    names = {_last(name) for name in modules}
    # All that it may fuse at once, since it refuses a part of them.
    whole = {"gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
    config = LoraConfig(target_modules=sorted(names | whole))
    convert_peft_config_for_transformers(config, model, None)
    kept = set(config.target_modules or ())
    return [name for name in modules if _last(name) in names - kept]


def _refused_by_peft(model: Any, name: str) -> bool:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba

    try:
        _check_lora_target_modules_mamba(LoraConfig(), model, name)
    except ValueError:
        return True
    return False


def require_patterns(settings: LoraSettings, names: list[str]) -> None:
    """PEFT passes over a pattern that matches nothing; here it is an error.

    Args:
        settings: With the patterns.
        names: Of the target modules and parameters.

    Raises:
        LoraError: One matches none of them.
    """
    for key in _PATTERNS:
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


def require_no_biases(settings: LoraSettings, what: str) -> None:
    """Check that no bias trains, in a model where some are of ``what`` is to stay frozen.

    Raises:
        LoraError: ``lora.bias`` says otherwise.
    """
    if settings.bias != "none":
        raise LoraError(
            f"lora.bias: {settings.bias} would also train biases of {what} in this model; set it to none"
        )


def require_settings_for_parameters(settings: LoraSettings, parameters: list[str]) -> None:
    """PEFT adapts a parameter by adding to it, which some settings cannot be part of.

    Raises:
        LoraError: Such a setting, and parameters to adapt.
    """
    if not parameters:
        return
    wrong = [
        f"lora.{key}: {getattr(settings, key)}"
        for key in ("lora_dropout", "use_dora")
        if getattr(settings, key)
    ]
    if settings.init not in ("default", "gaussian"):
        wrong.append(f"lora.init: {settings.init}")
    if wrong:
        raise LoraError(
            f"{' and '.join(wrong)} cannot go with adapters on the experts of a mixture "
            f"({parameters[0]}), which are parameters and no linear modules; leave it at its default, "
            "or name the attention's projections alone in lora.target_modules"
        )


def _exclude(found: _Found, chosen: list[str]) -> str | None:
    """A regular expression of the modules that share a target's name and are none."""
    names, taken = {_last(name) for name in chosen}, set(chosen)
    others = [name for name in found.all_linears if _last(name) in names and name not in taken]
    return "|".join(dict.fromkeys(_pattern(name, found.text) for name in others)) or None


def _pattern(name: str, text: str) -> str:
    """The part of the model beside the text that a module is in; or it, in whatever layer."""
    parts, inside = name.split("."), text.split(".") if text else []
    if parts[: len(inside)] == inside:
        return re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name))
    shared = next(i for i, part in enumerate(parts) if i >= len(inside) or part != inside[i])
    return re.escape(".".join(parts[: shared + 1])) + r"\..+"


def _suffix(name: str, chosen: list[str], every: list[str]) -> str:
    """The shortest end of a parameter's name, of two parts or more, that only chosen ones have."""
    parts, taken = name.split("."), set(chosen)
    least = 3 if name.endswith(".weight") else 2
    for length in range(least, len(parts)):
        end = ".".join(parts[-length:])
        if all(other in taken for other in every if other.endswith(f".{end}")):
            return end
    return name


def _in_order(names: Iterator[str]) -> tuple[str, ...]:
    """The handbook's first and in its order, then the family's own in the model's."""
    found = dict.fromkeys(names)
    known = [name for name in HANDBOOK_TARGET_MODULES if name in found]
    return tuple(dict.fromkeys([*known, *found]))


def _last(name: str) -> str:
    """The last part of a name; of an item of a list, its list's too."""
    *_, parent, last = ["", *name.split(".")]
    return f"{parent}.{last}" if last.isdigit() else last


def _features(module: Any) -> tuple[int, int]:
    """Input and output features of a linear module or of transformers' Conv1D."""
    if hasattr(module, "in_features"):
        return int(module.in_features), int(module.out_features)
    d_in, d_out = module.weight.shape
    return int(d_in), int(d_out)
