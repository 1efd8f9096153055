"""The tokenizer of a run: the base model's, with the run's one chat template."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import ConfigError, ModelError
from llm_engineering.model.base_model import model_folder
from llm_engineering.model.chat_template import (
    TemplateInputs,
    read_chat_template,
    turn_end_tokens,
    variables,
)
from llm_engineering.model.sentencepiece_proto import use_readable_proto
from llm_engineering.training_stack import import_unsloth

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_SHOWN = 12  # special tokens in a message


def load_tokenizer(
    settings: ModelSettings,
    *,
    tokens: Sequence[str] = (),
    template: str | None = None,
    trains: bool = True,
) -> PreTrainedTokenizerBase:
    """Load the tokenizer and set the run's chat template on it.

    A tokenizer without a padding token pads with its EOS token: padding is masked by attention
    and by label, never recognised by its id.

    Args:
        settings: Names model and chat template.
        tokens: ``lora.trainable_tokens``.
        template: The chat template's text, in place of what the settings name.
        trains: False in a process that loads no model, where unsloth's import of seconds is spared.

    Raises:
        ConfigError: ``model.chat_template`` is no readable Jinja template.
        ModelError: No tokenizer, no EOS token or none of that name, or no chat template to be had.
    """
    if trains:
        import_unsloth()
    if template is None:
        template = read_chat_template(settings.chat_template)
    tokenizer = read_tokenizer(settings, tokens)
    if template is not None:
        tokenizer.chat_template = template
    _check_template(settings, tokenizer)
    if settings.eos_token is not None:
        if settings.eos_token not in tokenizer.get_vocab():
            raise ModelError(
                f"model.eos_token: {settings.eos_token!r} is no token of {settings.id}, whose "
                f"special tokens are {_special_tokens(tokenizer)}; choose one of its vocabulary"
            )
        tokenizer.eos_token = settings.eos_token
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model.id: the tokenizer of {settings.id} has no EOS token; say which of its tokens "
            f"ends an answer with model.eos_token, of {_special_tokens(tokenizer)}"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def read_tokenizer(settings: ModelSettings, tokens: Sequence[str]) -> PreTrainedTokenizerBase:
    """The base model's tokenizer as it is, but that those of ``tokens`` which it lacks are added to it.

    Raises:
        ModelError: There is no usable one.
    """
    from transformers import AddedToken, AutoTokenizer

    folder = model_folder(settings, weights=False)
    if not (folder / "tokenizer.json").is_file():
        use_readable_proto()
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=settings.trust_remote_code
        )
    except Exception as error:  # the tokenizers library raises plain ones for a broken file
        reason = (str(error).strip().splitlines() or ["no message"])[0]
        raise ModelError(
            f"model.id: {settings.id} has no usable tokenizer ({reason.rstrip(' :')}); "
            "it needs a whole tokenizer.json, or the files that one is made from"
        ) from None
    known = tokenizer.get_vocab()
    lacking = [token for token in tokens if token not in known]
    if lacking:
        tokenizer.add_tokens(
            [AddedToken(token, special=True, normalized=False) for token in lacking],
            special_tokens=True,
        )
    return tokenizer


def stop_token_ids(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids at which generation stops: the tokenizer's EOS and those of ``generation_config.json``.

    And those that ``turn_end_tokens`` finds in the chat template.

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
    inputs = TemplateInputs(variables=settings.chat_template_kwargs)
    learned = turn_end_tokens(tokenizer, inputs, ids)
    if learned:
        logger.info(
            "the chat template ends answers with %s too: it is trained, and generation stops there",
            " and ".join(tokenizer.convert_ids_to_tokens(sorted(learned))),
        )
    return frozenset(ids | learned)


def _check_template(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> None:
    import jinja2

    if isinstance(tokenizer.chat_template, dict):  # named ones, as some models bring
        named = tokenizer.chat_template
        if "default" not in named:
            raise ModelError(
                f"model.chat_template: the tokenizer of {settings.id} has those of the names "
                f"{', '.join(sorted(named))} and none is the default; choose a .jinja file"
            )
        others = sorted(set(named) - {"default"})
        logger.info("of the tokenizer's chat templates, default is used, not %s", ", ".join(others))
        tokenizer.chat_template = named["default"]
    template = tokenizer.chat_template
    if not template:
        raise ModelError(
            f"model.chat_template: the tokenizer of {settings.id} has none; "
            "choose one, for example alpaca"
        )
    try:
        variables(template)
    except jinja2.TemplateSyntaxError as error:
        whose = settings.chat_template or f"that of the tokenizer of {settings.id}"
        kind = ModelError if settings.chat_template is None else ConfigError
        raise kind(
            f"model.chat_template: {whose} is no Jinja template: line {error.lineno}: "
            f"{error.message}; choose another"
        ) from None


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> str:
    names = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    shown = [repr(name) for name in names[:_SHOWN]] + (["..."] if len(names) > _SHOWN else [])
    return ", ".join(shown) or "(none)"
