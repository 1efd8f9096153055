"""The tokenizer of a run: the base model's, with the run's one chat template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ModelError
from llm_engineering.model.base_model import model_folder
from llm_engineering.model.chat_template import read_chat_template
from llm_engineering.training_stack import import_unsloth

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(settings: ModelSettings, *, trains: bool = True) -> PreTrainedTokenizerBase:
    """Load the tokenizer and set the run's chat template on it.

    A tokenizer without a padding token pads with its EOS token: padding is masked by attention
    and by label, never recognised by its id.

    Args:
        settings: Names model and chat template.
        trains: False in a process that loads no model, where unsloth's import of seconds is spared.

    Raises:
        ModelError: No tokenizer, no EOS token, or no chat template to be had.
    """
    if trains:
        import_unsloth()
    from transformers import AutoTokenizer

    template = read_chat_template(settings.chat_template)
    folder = model_folder(settings, weights=False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=settings.trust_remote_code
        )
    except Exception as error:  # the tokenizers library raises plain ones for a broken file
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(
            f"model.id: {settings.id} has no usable tokenizer ({reason.rstrip(' :')}); "
            "it needs a whole tokenizer.json, or the files that one is made from"
        ) from None
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise ModelError(
            f"model.chat_template: the tokenizer of {settings.id} has none; "
            "choose one, for example alpaca"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(f"model.id: the tokenizer of {settings.id} has no EOS token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def stop_token_ids(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids at which generation stops: the tokenizer's EOS and those of ``generation_config.json``.

    Raises:
        ModelError: ``generation_config.json`` is there but unreadable.
    """
    ids = {int(tokenizer.eos_token_id)}
    path = model_folder(settings, weights=False) / "generation_config.json"
    if path.is_file():
        try:
            stated = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError):
            raise ModelError(f"{path}: is not a JSON object; fetch the model anew") from None
        ids.update(stated if isinstance(stated, list) else [] if stated is None else [stated])
    return frozenset(ids)
