"""The scripts that a page carries in itself, each allowed by its digest: it can run no other."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
_UPLOT = _TEMPLATES / "uplot"
"""uPlot 1.6.32 (MIT licence): three files as its npm package has them, unchanged."""


def page_scripts(*, zooms: bool = False, answers: bool = False) -> dict[str, Any]:
    """What a page's template needs of its scripts; a page without any has a policy that allows none.

    Args:
        zooms: Whether it has curves made by ``zoom.zooming_figure``.
        answers: Whether it has answers to be filtered.

    Returns:
        ``scripts``, ``script_hashes`` (as a Content-Security-Policy names them) and ``script_styles``.
    """
    scripts = [_uplot(), _read(_TEMPLATES / "report" / "zoom.js")] if zooms else []
    if answers:
        scripts.append(_read(_TEMPLATES / "report" / "answers.js"))
    return {
        "scripts": [Markup(script) for script in scripts],  # noqa: S704  (files of this project)
        "script_hashes": [_digest(script) for script in scripts],
        "script_styles": Markup(_read(_UPLOT / "uPlot.min.css")) if zooms else "",  # noqa: S704
    }


def _uplot() -> str:
    """uPlot with its licence, which copies must carry, in place of its first line, a web address."""
    code = _read(_UPLOT / "uPlot.iife.min.js").split("\n", 1)[1]
    return f"/*! uPlot\n{_read(_UPLOT / 'LICENSE.txt')}\n*/\n{code}"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
