"""Rows longer than a model was made for: its rotary positions stretched, on purpose, by ``model.rope_scaling``.

Everything that loads a model takes its positions from ``config.json``: unsloth, transformers, the
process that reads exports back, the merge, a remote job. So a stretched model is a folder of its own,
with another ``config.json`` beside links to the same files, and nothing else need know. The adapter
alone does not say what it belongs to: ``hf_overrides.json`` lies with it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from llm_engineering.configuration.model import ModelSettings, RopeScaling
from llm_engineering.errors import ModelError

logger = logging.getLogger(__name__)

HF_OVERRIDES = "hf_overrides.json"
"""In an adapter's folder: what the base model's configuration must say, by vLLM's name for it."""

_POSITIONS = "max_position_embeddings"
_OWN_ROTARY = ("gemma", "gemma2")  # unsloth's, which passes over the configuration


def overrides(config: dict[str, Any], scaling: RopeScaling, model: str) -> dict[str, Any]:
    """What a model's configuration says of stretched positions, as transformers 5 names it.

    Args:
        config: The model's config.json.
        scaling: How far, and by which rule.
        model: What messages call the model.

    Raises:
        ModelError: The model's positions cannot be stretched so.
    """
    default = _default_parameters(config, model)
    known = config[_POSITIONS]
    if scaling.original_max_position_embeddings not in (None, known):
        raise ModelError(
            f"model.rope_scaling: original_max_position_embeddings is "
            f"{scaling.original_max_position_embeddings}, but {model} was made for {known} positions; "
            "leave the key out"
        )
    parameters = default | {"rope_type": scaling.rope_type, "factor": scaling.factor}
    if scaling.rope_type == "yarn":
        parameters["original_max_position_embeddings"] = known
    return {"rope_parameters": parameters, _POSITIONS: int(known * scaling.factor)}


def told(scaling: RopeScaling | None) -> dict[str, Any]:
    """What tells stretched positions from others, by the names of a configuration."""
    return scaling.model_dump(include={"rope_type", "factor"}) if scaling else {}


def stretched_folder(folder: Path, scaling: RopeScaling, cache: Path) -> Path:
    """A folder of the same files with stretched positions in its config.json.

    Args:
        folder: The model's own.
        scaling: How far, and by which rule.
        cache: Receives it; it takes no room to speak of.

    Raises:
        ModelError: As ``overrides``, or the cache cannot be written.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stretched = config | overrides(config, scaling, str(folder))
    for older in ("rope_scaling", "rope_theta"):  # transformers 4's; rope_parameters has both
        stretched.pop(older, None)
    text = json.dumps(stretched, indent=2, ensure_ascii=False) + "\n"
    name = hashlib.sha256(f"{folder.resolve()}\n{text}".encode()).hexdigest()[:32]
    target = cache / "stretched" / name
    try:
        target.mkdir(parents=True, exist_ok=True)
        files = {path.name: path for path in folder.iterdir() if path.is_file()}
        del files["config.json"]
        for link in target.iterdir():
            if link.is_symlink() and link.name not in files:
                link.unlink()
        for file, path in files.items():
            _link(target / file, path.absolute())
        _write(target / "config.json", text)
    except OSError as error:
        raise ModelError(
            f"model.rope_scaling: {target} cannot be written ({error.strerror}); set XDG_CACHE_HOME "
            "to a folder that can"
        ) from None
    return target


def require_stretched(model: Any, settings: ModelSettings) -> None:
    """Check that a loaded model computes the positions that its configuration states, and say so.

    A model of PyTorch's meta device has no numbers: of it only the rule's name is checked.

    Raises:
        ModelError: The model has rotary positions of its own kind, or none.
    """
    scaling, name = settings.rope_scaling, settings.id
    if scaling is None:
        return
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    modules = [module for module in model.modules() if hasattr(module, "inv_freq")]
    stated = model.config.rope_parameters
    if any(stated.get(name) != asked for name, asked in told(scaling).items()):
        raise ModelError(f"model.rope_scaling: {name} was loaded with the positions {stated}")
    with torch.device("cpu"):
        inverse, factor = ROPE_INIT_FUNCTIONS[scaling.rope_type](model.config, torch.device("cpu"))

    def is_stretched(module: Any) -> bool:
        found = module.inv_freq
        if found.is_meta:
            return bool(getattr(module, "rope_type", scaling.rope_type) == scaling.rope_type)
        same = found.shape == inverse.shape and torch.allclose(
            found.float().cpu(), inverse, rtol=1e-3, atol=0.0
        )
        return same and abs(getattr(module, "attention_scaling", 1.0) - factor) < 1e-3

    if not modules or not all(map(is_stretched, modules)):
        raise ModelError(
            f"model.rope_scaling: {name} ({model.config.model_type}) computes its positions by other "
            f"rules than {scaling.rope_type}; leave the key out, and set model.max_seq_length to at "
            "most the positions that the model was made for"
        )
    positions = model.config.max_position_embeddings
    logger.info(
        "%s: %d positions, stretched %g times by %s",
        name, positions, scaling.factor, scaling.rope_type,
    )  # fmt: skip
    if settings.max_seq_length <= positions / scaling.factor:
        logger.warning(
            "model.rope_scaling: rows of model.max_seq_length (%d) do not need it, and every row is "
            "computed otherwise than the model has learned",
            settings.max_seq_length,
        )


def _default_parameters(config: dict[str, Any], model: str) -> dict[str, Any]:
    """The rotary parameters that a model was made with.

    Raises:
        ModelError: It has none that can be stretched; says why.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = str(config.get("model_type"))
    why: str | None = None
    if isinstance(config.get("text_config"), dict):
        why = "it is a model of text and more"
    elif kind not in CONFIG_MAPPING:
        why = f"transformers does not know its model_type, {kind}"
    elif kind in _OWN_ROTARY:
        why = f"unsloth's positions of {kind} do not heed the configuration"
    if why is None:
        made = AutoConfig.for_model(**config)
        parameters = getattr(made, "rope_parameters", None)
        if not isinstance(parameters, dict) or not isinstance(config.get(_POSITIONS), int):
            why = "it has no rotary positions (RoPE), or does not say for how many it was made"
        elif any(isinstance(value, dict) for value in parameters.values()):
            why = "its layers have positions of different kinds"
        elif parameters.get("rope_type", "default") != "default":
            why = f"its positions are stretched already, by {parameters['rope_type']}"
        else:
            return dict(parameters)
    raise ModelError(
        f"model.rope_scaling: the positions of {model} cannot be stretched: {why}. Leave the key out, "
        "and set model.max_seq_length to at most the positions that the model was made for"
    )


def _link(link: Path, path: Path) -> None:
    """Make a link, or let it be if it is there; another process may make it in the same moment."""
    if link.is_symlink() and os.readlink(link) == str(path):
        return
    with tempfile.TemporaryDirectory(dir=link.parent.parent) as aside:
        made = Path(aside) / link.name
        made.symlink_to(path)
        os.replace(made, link)


def _write(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as aside:
        made = Path(aside) / path.name
        made.write_text(text, encoding="utf-8")
        os.replace(made, path)
