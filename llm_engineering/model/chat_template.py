"""The one chat template of a run: which it is, what it is given, and what it makes of messages."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.errors import ConfigError

if TYPE_CHECKING:
    from llm_engineering.configuration.model import ModelSettings

_SHIPPED = Path(__file__).parent / "chat_templates"
_DATE = "strftime_now"  # the one way that transformers gives a template to the clock
_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning", "thought")
_GIVEN = {  # what every template is given, whatever the configuration says
    *("messages", "tools", "documents", "add_generation_prompt", "raise_exception", _DATE),
    *("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token"),
}


class TemplateInputs(BaseModel):
    """What a chat template is given beside messages and tools: equal inputs, equal text."""

    variables: dict[str, Any] = Field({}, description="As model.chat_template_kwargs.")
    date: datetime.date | None = Field(
        None, description="What a template that prints today's date prints; None: it prints none."
    )

    def arguments(self) -> dict[str, Any]:
        """For ``apply_chat_template``; a date stands still, at midnight."""
        if self.date is None:
            return dict(self.variables)
        midnight = datetime.datetime.combine(self.date, datetime.time())
        # A variable of this name hides the function that transformers gives every template.
        return {**self.variables, _DATE: midnight.strftime}


def read_chat_template(name: str | None) -> str | None:
    """Return the Jinja text of ``model.chat_template``; None keeps the tokenizer's own.

    Raises:
        ConfigError: The name is neither a shipped template nor a readable .jinja file.
    """
    if name is None:
        return None
    shipped = {path.stem: path for path in _SHIPPED.glob("*.jinja")}
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise ConfigError(
            f"model.chat_template: {name!r} is neither one of {', '.join(sorted(shipped))} "
            "nor a .jinja file"
        )
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"model.chat_template: {name} cannot be read as UTF-8: {error}") from None


def template_inputs(settings: ModelSettings, template: str) -> TemplateInputs:
    """What the run gives its template; a date that is not configured is today's, once for the run.

    Raises:
        ConfigError: A key of ``model.chat_template_kwargs``, or a date, means nothing to the
            template, so that it would be dropped in silence.
    """
    known = variables(template)
    for name in settings.chat_template_kwargs:
        if name not in known:
            raise ConfigError(
                f"model.chat_template_kwargs: {name} is no variable of this chat template; it has "
                f"{', '.join(sorted(known - _GIVEN)) or 'none'}"
            )
    date = settings.chat_template_date
    if _DATE not in known:
        if date is not None:
            raise ConfigError(
                f"model.chat_template_date: {date} is asked for, but this chat template prints no "
                "date; remove the key"
            )
        return TemplateInputs(variables=settings.chat_template_kwargs)
    return TemplateInputs(
        variables=settings.chat_template_kwargs, date=date or datetime.date.today()
    )


@lru_cache
def variables(template: str) -> frozenset[str]:
    """Names that a template takes from outside, and functions that it calls.

    Raises:
        jinja2.TemplateSyntaxError: It is no Jinja.
    """
    import jinja2.meta
    import jinja2.sandbox

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        extensions=["jinja2.ext.loopcontrols"]
    )
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)
    # What a template sets where it is not given counts as given, which this finder of Jinja's
    # leaves out; a comment or a literal may name anything, which does no harm.
    asked = re.findall(r"\b(\w+)\s+is\s+(?:not\s+)?(?:defined|undefined|none)", plain)
    asked += re.findall(r"\b(\w+)\s*\|\s*default\b", plain)
    found = jinja2.meta.find_undeclared_variables(environment.parse(plain))
    return frozenset({*found, *asked})


@lru_cache
def reasoning_key(template: str) -> str:
    """The key under which a template reads what the assistant thought: there is no standard one."""
    for key in _REASONING_KEYS:
        if re.search(rf"\.{key}\b|['\"]{key}['\"]", template):
            return key
    return _REASONING_KEYS[0]


@lru_cache
def has_generation_markers(template: str) -> bool:
    """Whether a template says itself what of an answer is trained, by ``{% generation %}``."""
    return re.search(r"\{%-?\s*generation\s*-?%\}", template) is not None


def for_template(
    messages: Sequence[Mapping[str, Any]], template: str, *, in_parts: bool = False
) -> list[dict[str, Any]]:
    """Messages as a template reads them: its key for reasoning, and its form of content."""
    key = reasoning_key(template)
    found = [
        {key if name == _REASONING_KEYS[0] else name: value for name, value in message.items()}
        for message in messages
    ]
    if in_parts:
        for message in found:
            message["content"] = [{"type": "text", "text": message["content"]}]
    return found


def takes_parts(tokenizer: Any, inputs: TemplateInputs) -> bool:
    """Whether a template reads content as a list of parts alone, as those for images do."""
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    for in_parts in (False, True):
        turns = for_template(messages, tokenizer.chat_template, in_parts=in_parts)
        try:
            (text,) = apply_template(tokenizer, [turns], inputs=inputs, add_generation_prompt=False)
        except Exception:  # noqa: S112  (what it does not take)
            continue
        if "Why?" in text and "Because." in text:
            return in_parts
    return False


def apply_template(
    tokenizer: Any,
    conversations: Sequence[Sequence[Mapping[str, Any]]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    inputs: TemplateInputs,
    add_generation_prompt: bool,
) -> list[str]:
    """Render conversations with a tokenizer's own chat template.

    Args:
        tokenizer: It has one.
        conversations: Messages as the template takes them.
        tools: JSON schemas of the tools that all of them have.
        inputs: What else it is given.
        add_generation_prompt: Whether to add the beginning of an answer.

    Raises:
        Exception: Whatever the template raises; it is a program.
    """
    texts = tokenizer.apply_chat_template(
        [list(one) for one in conversations],
        tools=list(tools) or None,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        **inputs.arguments(),
    )
    return [str(text) for text in texts]


def generation_spans(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]],
    inputs: TemplateInputs,
) -> tuple[str, list[tuple[int, int]]]:
    """A rendered conversation, and which of its characters the template's markers enclose."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, spans = render_jinja_template(
        conversations=[list(messages)],
        tools=list(tools) or None,
        chat_template=tokenizer.chat_template,
        return_assistant_tokens_mask=True,
        **{**tokenizer.special_tokens_map, **inputs.arguments()},
    )
    return str(rendered[0]), list(spans[0])


def turn_end_tokens(tokenizer: Any, inputs: TemplateInputs, known: set[int]) -> set[int]:
    """Tokens that end an answer in a template, beside those that are known to.

    Where a template ends an answer by nothing but the beginning of the next turn, the special token
    that begins it (GLM-4.5's ``<|user|>``, and ``<|observation|>`` behind a tool call). Where
    answers end with a known token and tool calls do not, what ends these (gpt-oss's ``<|call|>``).
    """
    in_parts = takes_parts(tokenizer, inputs)
    template = tokenizer.chat_template
    asked = {"role": "user", "content": "Why?"}
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    said = {"role": "assistant", "content": "Because."}
    calls = {"role": "assistant", "content": "", "tool_calls": [call]}
    result = {"role": "tool", "name": "look", "content": "seen"}
    special = {
        str(token): index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special
    }
    stops = {str(tokenizer.convert_ids_to_tokens(index)) for index in known}

    def behind(answer: dict[str, Any], end: str, following: dict[str, Any]) -> tuple[str, str]:
        """What is behind the answer's last word, and what begins the next turn."""
        whole, longer = (
            apply_template(
                tokenizer,
                [for_template(turns, template, in_parts=in_parts)],
                inputs=inputs,
                add_generation_prompt=False,
            )[0]
            for turns in ([asked, answer], [asked, answer, following])
        )
        rest = whole.rpartition(end)[2]
        return rest, longer[len(whole) :].lstrip() if longer.startswith(whole) else ""

    def longest(begun: list[str]) -> set[int]:
        return {special[max(begun, key=len)]} if begun else set()

    try:
        rest, after = behind(said, "Because.", asked)
    except Exception:  # a template is a program
        return set()
    ends = any(stop in rest for stop in stops)
    if not ends and any(token in rest for token in special):
        return set()  # a token that could be the end, if it were configured: model.eos_token
    found = set() if ends else longest([one for one in special if after.startswith(one)])
    try:
        rest, after = behind(calls, "look", result)
    except Exception:  # of tools it may know nothing
        return found - known
    if ends and not any(stop in rest for stop in stops):
        found |= longest([one for one in special if rest.rstrip().endswith(one)])
    elif found:
        found |= longest([one for one in special if after.startswith(one)])
    return found - known
