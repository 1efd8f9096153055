"""mkdocs hook: links from a page to files outside docs/, which a site of docs/ does not hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Lead them to the repository if ``repo_url`` names one; otherwise name the file alone."""
    docs = Path(config["docs_dir"])
    here = docs / Path(page.file.src_uri).parent

    def outside(link: re.Match[str]) -> str:
        file = (here / link[2]).resolve()
        if file.is_relative_to(docs.resolve()) or not file.exists():
            return link[0]  # mkdocs checks it
        name = file.relative_to(docs.resolve().parent).as_posix()
        if config.get("repo_url"):
            return f"[{link[1]}]({config['repo_url'].rstrip('/')}/blob/HEAD/{name})"
        return link[1] if link[1].strip("`") == name else f"{link[1]} (`{name}`)"

    return _LINK.sub(outside, markdown)
