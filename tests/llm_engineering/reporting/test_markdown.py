"""Answers as HTML: what is rendered, and what never becomes markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from llm_engineering.reporting.markdown import LONGEST_MARKDOWN, rendered

ELEMENTS = {
    *("p", "b", "strong", "em", "s", "u", "code", "pre", "ul", "ol", "li", "blockquote", "hr"),
    *("br", "div", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"dir", "tabindex", "role", "aria-label", "scope", "start", "class"}


class Elements(HTMLParser):
    """Elements and attributes of HTML, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def html(text: str) -> str:
    found = rendered(text)
    assert found is not None
    return " ".join(found.split())


def test_emphasis_lists_and_code_are_rendered() -> None:
    assert html("**a** *b* `c` ~~d~~") == (
        '<p dir="auto"><strong>a</strong> <em>b</em> <code>c</code> <s>d</s></p>'
    )
    assert html("- a\n- b") == '<ul> <li dir="auto">a</li> <li dir="auto">b</li> </ul>'
    assert html("*a*\nb") == '<p dir="auto"><em>a</em><br /> b</p>'


@pytest.mark.parametrize(
    "text", ["", "plain", "two\nlines", "a * b < c", "<script>alert(1)</script>"]
)
def test_text_that_is_no_markdown_stays_text(text: str) -> None:
    assert rendered(text) is None


def test_an_unclosed_fence_is_code_to_its_end() -> None:
    assert html("```py\na < b") == '<pre tabindex="0"><code>a &lt; b</code></pre>'


def test_a_table_scrolls_by_itself() -> None:
    found = html("|a|b|\n|-|-|\n|1|2|")
    assert found.startswith('<div class="scroll" tabindex="0" role="group" aria-label="Table">')
    assert '<th scope="col" dir="auto">a</th>' in found
    assert found.endswith("</table></div>")


def test_no_heading_is_added_to_the_page() -> None:
    assert html("# One\n\nTwo\n===") == '<p dir="auto"><b>One</b></p> <p dir="auto"><b>Two</b></p>'


def test_links_and_images_are_text_with_their_address() -> None:
    assert html('[a](https://x.y "t")') == ('<p dir="auto"><u>a</u> <code>(https://x.y)</code></p>')
    assert html("![a *b*](https://x.y/z.png)") == (
        '<p dir="auto">[image: a b] <code>(https://x.y/z.png)</code></p>'
    )


@pytest.mark.parametrize(
    "text",
    [
        "**a** <script>alert(1)</script>",
        "**a** <img src=x onerror=alert(1)>",
        "<div onclick=alert(1)>\n**a**\n</div>",
        "**a** [b](javascript:alert(1))",
        "**a** [b](JaVaScRiPt:alert(1)) <javascript:alert(1)>",
        '[a](https://x.y/"onmouseover="alert(1) "\'><script>alert(1)</script>")',
        '![<b onload=alert(1)>](https://x.y/"><script>)',
        "**a** [a](data:text/html,<script>alert(1)</script>)",
        "```<script>\n</code></pre><script>alert(1)</script>",
        "`</code><script>alert(1)</script>`",
        "|<script>|</td>|\n|-|-|\n|<img src=x onerror=alert(1)>|b|",
        "[a]: javascript:alert(1)\n\n**b** [a]",
        "<!-- **a** -->\n\n**b** <![CDATA[ <x> ]]>",
        "# <h2>A heading of the page</h2>",
        "**\u202eabc\u202c** \u0634\u0643\u0631\u0627",
        "&lt;script&gt; **a** &#60;script&#62;",
    ],
)
def test_an_attack_stays_text(text: str) -> None:
    found = Elements(html(text))
    assert found.tags <= ELEMENTS
    assert found.attributes <= ATTRIBUTES


def test_what_is_too_large_is_not_rendered() -> None:
    assert rendered("**a** " * (LONGEST_MARKDOWN // 6)) is not None
    assert rendered("**a** " * (LONGEST_MARKDOWN // 6 + 1)) is None
    wide = "|" * 700 + "\n" + "|-" * 699 + "|\n" + "|\n" * 900  # 900 rows of 699 cells
    assert len(wide) < LONGEST_MARKDOWN
    assert rendered(wide) is None
