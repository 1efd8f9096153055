"""The contents list of a page, made of its own headings."""

from __future__ import annotations

import re

from markupsafe import Markup

_HEADING = re.compile(r'<h2(?P<group> class="question")?>(?P<text>.*?)</h2>', re.DOTALL)

_EMPTY = re.compile(r'<h2 class="question">[^<]*</h2>\s*(?=<h2 class="question">|\Z)')
"""A group without a section."""


def with_contents(body: str) -> Markup:
    """A page's body with an id on each second-level heading, behind a list of links to them.

    Args:
        body: Markup, whose texts are escaped: no text of the data can be a heading. A heading of the
            class ``question`` begins a group, and is in the list above its sections.
    """
    entries: list[tuple[bool, str, str]] = []

    def name(heading: re.Match[str]) -> str:
        text = Markup(heading["text"]).striptags()  # noqa: S704 - markup of ours
        words = "-".join(re.findall(r"[a-z0-9]+", text.lower())) or "section"
        same = sum(known == words or known.startswith(f"{words}--") for _, known, _ in entries)
        anchor = f"{words}--{same + 1}" if same else words
        entries.append((bool(heading["group"]), anchor, text))
        return f'<h2{heading["group"] or ""} id="{anchor}">{heading["text"]}</h2>'

    body = _EMPTY.sub("", body)
    marked = Markup(_HEADING.sub(name, body))  # noqa: S704 - what came in, with ids
    grouped = any(is_group for is_group, _, _ in entries)
    groups: list[tuple[Markup, list[Markup]]] = []
    for is_group, anchor, text in entries:
        link = Markup('<a href="#{}">{}</a>').format(anchor, text)
        if is_group or not grouped or not groups:
            groups.append((link, []))
        else:
            groups[-1][1].append(link)
    if not groups:
        return marked
    listed = Markup("").join(
        Markup("<li>{}{}</li>").format(link, _list(links)) for link, links in groups
    )
    return Markup('<nav class="contents" aria-label="Contents"><ul>{}</ul></nav>{}').format(
        listed, marked
    )


def _list(links: list[Markup]) -> Markup:
    """None for no link: screen readers stumble over an empty list."""
    items = Markup("").join(Markup("<li>{}</li>").format(link) for link in links)
    return Markup("<ul>{}</ul>").format(items) if links else Markup("")
