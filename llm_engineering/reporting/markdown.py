"""An answer's Markdown as HTML that can do nothing: no markup of its own, no link to click, no image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

LONGEST_MARKDOWN = 4_000
"""Characters of an answer that is rendered: parsing takes time by the square of some texts."""
_MOST_HTML = 30_000
"""Bytes of one answer; a few characters of a table can ask for many cells."""
_PLAIN = {"paragraph_open", "paragraph_close", "inline", "text", "softbreak", "hardbreak"}
_DIRECTED = {"paragraph_open", "list_item_open"}
_OWN = {
    "heading_open": '<p dir="auto"><b>',
    "heading_close": "</b></p>\n",
    "table_open": '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>\n',
    "table_close": "</table></div>\n",
    "th_open": '<th scope="col" dir="auto">',
    "td_open": '<td dir="auto">',
    "link_open": "<u>",
}
"""What stands in the place of markdown-it's own, by its names."""


def rendered(text: str) -> Markup | None:
    """An answer rendered by CommonMark, with tables, struck text and its own line breaks.

    Links and images are their text with the address behind it. Headings are bold paragraphs, so that
    no answer adds one to the page. All text is escaped.

    Returns:
        None where rendering shows nothing that the text does not, or either is too large.
    """
    if len(text) > LONGEST_MARKDOWN:
        return None
    tokens = _parser().parse(text)
    if all(_is_plain(token) for token in tokens):
        return None
    html = _parser().renderer.render(tokens, _parser().options, {})
    # Escaped by markdown-it and by the rules below; html: False lets no markup through.
    return Markup(html) if len(html.encode()) <= _MOST_HTML else None  # noqa: S704


def _is_plain(token: Token) -> bool:
    return token.type in _PLAIN and all(_is_plain(child) for child in token.children or ())


class _Renderer(RendererHTML):
    """Elements that are the report's own, each with its direction where text begins in it."""

    def renderToken(  # noqa: N802  (markdown-it's name)
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        token = tokens[idx]
        if token.type in _OWN:
            return _OWN[token.type]
        if token.type in _DIRECTED:
            token.attrSet("dir", "auto")
        return super().renderToken(tokens, idx, options, env)

    def link_close(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        start = next(
            token for token in reversed(tokens[:idx]) if token.type == "link_open"
        )  # links hold no links
        return f"</u>{_address(start.attrGet('href'))}"

    def image(self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[idx]
        alt = self.renderInlineAsText(token.children or [], options, env)
        return f"[image: {escape(alt)}]{_address(token.attrGet('src'))}"

    def code_block(
        self, tokens: Sequence[Token], idx: int, options: OptionsDict, env: EnvType
    ) -> str:
        return f'<pre tabindex="0"><code>{escape(tokens[idx].content)}</code></pre>\n'

    fence = code_block


def _address(address: str | float | None) -> str:
    return f" <code>({escape(address)})</code>" if address else ""


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=_Renderer)
    return parser.enable(["table", "strikethrough"])
