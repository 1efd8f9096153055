"""The rows of the embeddings that train in full: those of ``lora.trainable_tokens``.

LoRA's factors change projections and leave the embeddings alone. PEFT trains single rows of them
beside it (``trainable_token_indices``), and those of an output layer that is not tied to them: a
token must be read, and an answer may end with it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import LoraError
from llm_engineering.initialisations.adapted_modules import TRAINED_ROWS
from llm_engineering.model.recipes import AdapterTargets
from llm_engineering.model.tokenizer import read_tokenizer


def token_rows(
    base: Any, model: ModelSettings, tokens: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """The rows of tokens by the name of each matrix, as ``peft.LoraConfig`` wants them said.

    Args:
        base: The base model, on the meta device.
        model: Names it.
        tokens: Their texts.

    Raises:
        LoraError: The embeddings have no row for one, or PEFT cannot train rows of this output layer.
        ModelError: There is no tokenizer.
    """
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    ids = token_ids(model, tokens, embeddings.weight.shape[0])
    found = {_name(base, embeddings): ids}
    if head is not None and head.weight is not embeddings.weight:
        if getattr(head, "bias", None) is not None:
            raise LoraError(
                f"lora.trainable_tokens: the output layer of {model.id} has a bias, which PEFT leaves out "
                "where it trains rows; take a model without one, or leave the tokens out"
            )
        found[_name(base, head)] = ids
    return found


def token_ids(model: ModelSettings, tokens: Sequence[str], rows: int) -> tuple[int, ...]:
    """The ids of tokens, in their order.

    Args:
        model: Names the base model.
        tokens: Their texts.
        rows: Of its embeddings.

    Raises:
        LoraError: They have no row for one; says which, and what could stand in its place.
        ModelError: There is no tokenizer.
    """
    tokenizer: Any = read_tokenizer(model, tokens)
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in tokens}
    beyond = {token: id_ for token, id_ in ids.items() if id_ >= rows}
    if not beyond:
        return tuple(ids.values())
    own = [
        str(token)
        for id_, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and id_ < rows and str(token) not in ids
        and id_ not in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    ]  # fmt: skip
    instead = f"; write one that it has in its place, as {own[-1]}" if own else ""
    raise LoraError(
        f"lora.trainable_tokens: {', '.join(beyond)} would be token {', '.join(map(str, beyond.values()))}, "
        f"and the embeddings of {model.id} have {rows} rows, none to spare{instead}"
    )


def require_wrapped(model: Any, targets: AdapterTargets) -> None:
    """Check that PEFT trains the rows wherever the model reads them.

    Args:
        model: With the adapter.
        targets: What it is made of.

    Raises:
        LoraError: It does not, as where it takes a tied output layer for one that is not.
    """
    if not targets.token_rows:
        return
    from peft.utils.other import TrainableTokensWrapper

    base = model.get_base_model()
    for what, module in (
        ("embeddings", base.get_input_embeddings()),
        ("output layer", base.get_output_embeddings()),
    ):
        if module is not None and not isinstance(module, TrainableTokensWrapper):
            raise LoraError(
                f"lora.trainable_tokens: PEFT does not train rows of the {what} of "
                f"{type(base).__name__}; leave them out for a model of this family"
            )


def tell_bias(model: Any) -> None:
    """Let PEFT's wrapper of an output layer say that it has no bias: trl's loss asks it."""
    from peft.utils.other import TrainableTokensWrapper

    head = model.get_base_model().get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        head.bias = None


@contextmanager
def fitting_rows(model: Any, adapter: Path) -> Iterator[Path]:
    """An adapter's folder that PEFT can add to a model whose tokens train, where the adapter's do not.

    PEFT 0.21 asks every adapter of such a model for rows. An adapter that has none gets the base
    model's, which changes nothing.

    Args:
        model: With its own adapter.
        adapter: The other one's folder.
    """
    from safetensors.torch import load_file, save_file

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    own = model.peft_config[model.active_adapter].trainable_token_indices
    if not own or config.get("trainable_token_indices"):
        yield adapter
        return
    weights = load_file(adapter / "adapter_model.safetensors")
    base = dict(model.get_base_model().named_modules())
    for name, ids in own.items():
        rows = base[name].original_module.weight.detach()[ids].cpu().contiguous()
        weights[f"base_model.model.{name}{TRAINED_ROWS}"] = rows
    config["trainable_token_indices"] = own
    with TemporaryDirectory() as made:
        folder = Path(shutil.copytree(adapter, made, dirs_exist_ok=True))
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(weights, folder / "adapter_model.safetensors")
        yield folder


def _name(model: Any, wanted: Any) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)
