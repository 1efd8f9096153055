"""Refuse a chat template whose tokens the base model never learned, before a weight is loaded.

Some base models (Llama 3) have rows of zeros in their embeddings for the special tokens that only
their instruct models use. LoRA does not train embeddings, so such a token would stay a blank, unless
``lora.trainable_tokens`` names it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")
_CONVERSATION = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
]


def require_learned_tokens(
    settings: ModelSettings,
    tokenizer: PreTrainedTokenizerBase,
    weights: Sequence[Path],
    tokens: Sequence[str],
) -> None:
    """Check the embeddings of the tokens that the chat template writes; a few rows are read.

    Args:
        settings: Named in the message.
        tokenizer: With the run's chat template.
        weights: The model's safetensors files.
        tokens: Those that will be trained.

    Raises:
        ModelError: A row is zero; says which tokens, and what to choose instead.
    """
    tokenizer_of_any: Any = tokenizer
    text = tokenizer_of_any.apply_chat_template(_CONVERSATION, tokenize=False)
    written = {int(id_) for id_ in tokenizer_of_any(text, add_special_tokens=False)["input_ids"]}
    # What begins, ends and pads may be blank: unsloth lets it pass, and masks padding.
    written -= {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    blank = [id_ for id_ in sorted(written) if _is_blank(weights, id_)]
    if len(blank) == len(written):
        return  # a file of zeros, as a benchmark makes it, has learned nothing at all
    names = [str(name) for name in tokenizer_of_any.convert_ids_to_tokens(blank)]
    untrained = [name for name in names if name not in tokens]
    if untrained:
        raise ModelError(
            f"model.chat_template: it writes {', '.join(untrained)}, which {settings.id} never learned "
            "(their embeddings are zero, and LoRA alone does not train embeddings). Set "
            f"lora.trainable_tokens: {json.dumps([*tokens, *untrained])} to train them too, or "
            "model.chat_template: alpaca, which needs no special token, or take the instruct model as "
            "model.id"
        )


def _is_blank(weights: Sequence[Path], token: int) -> bool:
    from safetensors import safe_open

    for path in weights:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is no dictionary)
                if name.endswith(_EMBEDDINGS):
                    rows = file.get_slice(name)
                    return token < rows.get_shape()[0] and not bool(rows[token : token + 1].any())
    return False
