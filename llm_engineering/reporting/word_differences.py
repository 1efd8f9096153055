"""Two answers side by side, with the words marked that only one of them has."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from markupsafe import Markup, escape

_LEAST_ALIKE = 0.3
"""Below this share of common words everything differs, and marks say nothing."""
_MOST_WORDS = 2000
"""Comparing takes time by the square of them."""


def word_differences(old: str, new: str) -> tuple[Markup, Markup]:
    """The old text with ``<del>`` around what is gone, the new one with ``<ins>`` around what came.

    Texts that are the same, have little in common or are very long come back as they are. All text
    is escaped.
    """
    ours, theirs = _words(old), _words(new)
    if old == new or max(len(ours), len(theirs)) > _MOST_WORDS:
        return escape(old), escape(new)
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    if matcher.ratio() < _LEAST_ALIKE:
        return escape(old), escape(new)
    before, after = Markup(""), Markup("")
    for kind, start, end, begin, stop in matcher.get_opcodes():
        gone, came = "".join(ours[start:end]), "".join(theirs[begin:stop])
        if kind == "equal":
            before, after = before + escape(gone), after + escape(came)
            continue
        before += Markup("<del>{}</del>").format(gone) if gone.strip() else escape(gone)
        after += Markup("<ins>{}</ins>").format(came) if came.strip() else escape(came)
    return before, after


def side_by_side(
    base: str, production: str | None, new: str
) -> tuple[Markup, Markup | None, Markup]:
    """Three answers, in which ``<del>`` is what the new one does not say any more.

    In the new one ``<ins>`` is what production does not say; the base model, where production's
    answer is not known (None).
    """
    old, against_base = word_differences(base, new)
    if production is None:
        return old, None, against_base
    current, against_production = word_differences(production, new)
    return old, current, against_production


def _words(text: str) -> list[str]:
    """Words, white space and single other characters, which together are the text."""
    return re.findall(r"\w+|\s+|[^\w\s]", text)
