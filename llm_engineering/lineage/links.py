"""Text that ZenML's dashboard would take for a link."""

from __future__ import annotations

from urllib.parse import urlparse


def not_a_link(text: str) -> str:
    """The text, written so that no word before its first colon reads as the scheme of a URL.

    "parity: adapter differs" would be shown as a link that leads nowhere. A name with colons (an ARN, a
    digest) stays as it is, to be copied.
    """
    try:
        scheme = urlparse(text).scheme
    except ValueError:  # an open bracket where a host would be
        return text
    return text.replace(": ", " – ", 1) if text[len(scheme) :].startswith(": ") else text
