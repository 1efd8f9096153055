"""The rows of the embeddings that train in full: those of ``lora.trainable_tokens``.

LoRA's factors change projections and leave the embeddings alone. PEFT trains single rows of them
beside it (``trainable_token_indices``), and those of an output layer that is not tied to them: a
token must be read, and an answer may end with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import LoraError
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
    tokenizer: Any = read_tokenizer(model, tokens)
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in tokens}
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    require_rows(model, ids, embeddings.weight.shape[0], tokenizer)
    found = {_name(base, embeddings): tuple(ids.values())}
    if head is not None and head.weight is not embeddings.weight:
        if getattr(head, "bias", None) is not None:
            raise LoraError(
                f"lora.trainable_tokens: the output layer of {model.id} has a bias, which PEFT leaves out "
                "where it trains rows; take a model without one, or leave the tokens out"
            )
        found[_name(base, head)] = tuple(ids.values())
    return found


def require_rows(model: ModelSettings, ids: dict[str, int], rows: int, tokenizer: Any) -> None:
    """Check that the embeddings have a row for each token.

    Args:
        model: Named in the message.
        ids: Of the tokens, by their texts.
        rows: Of the embeddings.
        tokenizer: With the tokens.

    Raises:
        LoraError: They have not; says which token, and what could stand in its place.
    """
    beyond = {token: id_ for token, id_ in ids.items() if id_ >= rows}
    if not beyond:
        return
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


def _name(model: Any, wanted: Any) -> str:
    return next(name for name, module in model.named_modules() if module is wanted)
