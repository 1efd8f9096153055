"""What every HTML page here is made with: templates that escape, and numbers as people read them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from llm_engineering.reporting import formats

_TEMPLATES = Path(__file__).parent / "templates"


def page_templates() -> Environment:
    """The templates; no text that is put into one becomes markup."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        change=formats.change,
        count=formats.count,
        fixed=formats.fixed,
        signed=formats.signed,
        number=formats.number,
        trimmed=formats.trimmed,
        percent=formats.percent,
        duration=formats.duration,
        usd=formats.usd,
        moment=formats.moment,
        prose=formats.prose,
        visible=visible_controls,
        scrolls=scrolls,
    )
    return environment


def scrolls(text: str, lines: int, label: str) -> Markup:
    """Attributes by which a box of text that may scroll is reached by keyboard; empty if it is short.

    Args:
        text: In the box.
        lines: That the box shows, of 20 characters at least.
        label: What the box is called.
    """
    if sum(1 + len(line) // 20 for line in text.split("\n")) <= lines:
        return Markup("")
    return Markup(' tabindex="0" role="group" aria-label="{}"').format(label)


def visible_controls(text: str) -> Markup:
    """Text with its control and format characters shown: ``↵``, ``→``, ``␀``, ``U+200B``."""
    return Markup("").join(_visible(character) for character in text)


def _visible(character: str) -> Markup:
    shown = {"\n": "↵", "\t": "→", "\x7f": "␡"}.get(character)
    if shown is None and ord(character) < 0x20:
        shown = chr(0x2400 + ord(character))
    if shown is None and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn"):
        shown = f"U+{ord(character):04X}"
    if shown is None:
        return escape(character)
    rest = character if character in "\n\t" else ""
    return Markup('<span class="control">{}</span>{}').format(shown, rest)
