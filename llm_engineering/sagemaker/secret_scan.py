"""Finding what looks like a secret in a text, before it leaves this machine."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from re import Pattern

from llm_engineering.errors import SecretError

SHOWN = 4  # characters of a secret that a message may show, at most

# Each kind's form as its issuer documents it, or as secret scanners know it; the group "secret",
# where there is one, is the part to hide. A more telling kind comes before a more general one.
_KINDS: tuple[tuple[str, Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("private key (PEM)", r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"),
        ("Hugging Face token", r"(?<![A-Za-z0-9_])(?:hf|api_org)_[A-Za-z0-9]{30,}"),
        ("AWS access key id", r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
        (
            "AWS secret access key",
            r"(?i:aws_?secret|secret_?access_?key)[\w.-]{0,30}(?:\\?[\"'])?[ \t]{0,8}[:=][ \t]{0,8}"
            r"(?:\\?[\"'])?(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        ),
        (
            "GitHub token",
            r"(?<![A-Za-z0-9_])(?:gh[opsur]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})",
        ),
        (
            "OpenAI or Anthropic API key",
            r"(?<![A-Za-z0-9_-])sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}",
        ),
        (
            "Slack token",
            r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,}"
            r"|(?<![A-Za-z0-9])xapp-[0-9]-[A-Za-z0-9-]{10,}"
            r"|hooks\.slack\.com/services/(?P<secret>T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,})",
        ),
        ("Google API key", r"(?<![A-Za-z0-9_-])AIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])"),
        ("Weights & Biases API key", r"(?<![A-Za-z0-9_])wandb_v[0-9]_[A-Za-z0-9_]{30,}"),
        (
            "Weights & Biases or Comet API key",
            r"(?i:wandb|comet)[\w.-]{0,30}(?:\\?[\"'])?[ \t]{0,8}[:=][ \t]{0,8}(?:\\?[\"'])?"
            r"(?P<secret>[0-9a-f]{40}|(?=[A-Za-z]*[0-9])[A-Za-z0-9]{25})(?![A-Za-z0-9_])",
        ),
        (
            "JSON web token",
            r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
        ),
        (
            "password in a URL",
            r"(?<![A-Za-z0-9])(?i:[a-z][a-z0-9+.-]{1,20})://[^\s/:@\"'<>{}]{0,60}:"
            r"(?P<secret>[^\s/:@\"'<>{}$*]{3,100})@[A-Za-z0-9\[]",
        ),
    )
)
# A value given to a telling name: `api_key: ...`, `"token": "..."`, `--password=...`.
_ASSIGNED = re.compile(
    r"(?P<word>(?i:token|secret|passwd|password|passphrase|api[_-]?key|private[_-]?key|access[_-]?key"
    r"|credential|bearer|authorization))(?P<rest>[\w.-]{0,40})"
    r"(?:(?:\\?[\"'])?[ \t]{0,8}(?:=>|[:=])[ \t]{0,8}|[ \t])(?i:bearer[ \t])?"
    r"(?P<quote>\\?[\"'])?(?P<secret>[A-Za-z0-9+/=_.~-]{16,500})(?P<after>[(\[]?)"
)
# Names that hold a telling word and no secret: tokenizer, max_new_tokens, token_digest.
_HARMLESS_NAME = re.compile(r"(?i)token[iz]|tokens|digest|sha\d|hash|checksum|fingerprint|_id$")
# What documentation writes in place of a password.
_PLACEHOLDER = re.compile(
    r"(?i)x+|\.+|%s|((my|your|the)[_-]?)?(pass|passwd|password|passphrase|pwd|pw|secret|token)"
)


@dataclass(frozen=True)
class Finding:
    """One thing that looks like a secret."""

    line: int  # counted from 1
    kind: str
    redacted: str  # the first characters, at most ``SHOWN``, and the length


def find_secrets(text: str) -> list[Finding]:
    """Return what looks like a secret in a text, in the text's order, each once."""
    found: list[tuple[int, int, str]] = []
    for kind, start, end in _candidates(text):
        if "EXAMPLE" in text[start:end]:  # as AWS marks the keys in its documentation
            continue
        if not any(start < known_end and known_start < end for known_start, known_end, _ in found):
            found.append((start, end, kind))
    return [
        Finding(text.count("\n", 0, start) + 1, kind, _redact(text[start:end]))
        for start, end, kind in sorted(found)
    ]


def require_no_secrets(where: str, text: str) -> None:
    """Refuse a text that is to leave this machine if something in it looks like a secret.

    Args:
        where: The file, or what the text is, for the message.
        text: What would leave.

    Raises:
        SecretError: Lists each finding by line and kind, redacted.
    """
    findings = find_secrets(text)
    if not findings:
        return
    lines = [
        f"{where}:{finding.line}: looks like a secret: {finding.kind}, {finding.redacted}"
        for finding in findings
    ]
    raise SecretError(
        "\n".join(lines)
        + "\nput it into AWS Secrets Manager and name it under sagemaker.secrets; nothing was sent"
    )


def _candidates(text: str) -> Iterator[tuple[str, int, int]]:
    for kind, pattern in _KINDS:
        for match in pattern.finditer(text):
            group = "secret" if match.groupdict().get("secret") else 0
            if kind.startswith("password") and _PLACEHOLDER.fullmatch(match[group]):
                continue
            yield kind, *match.span(group)
    for match in _ASSIGNED.finditer(text):
        called = match["after"] and not match["quote"]  # token = read_token_from_v2(
        harmless = _HARMLESS_NAME.search(match["word"] + match["rest"])
        if not called and not harmless and _is_random(match["secret"]):
            yield f"random value of a name with {match['word'].lower()!r}", *match.span("secret")


def _is_random(value: str) -> bool:
    """Whether a value looks drawn at random rather than written: a name, a path, a version.

    What is random changes between letters and digits, or between cases, far more often than
    words and numbers joined by punctuation do, and repeats few characters.
    """
    if _entropy(value) < 3.0:
        return False
    parts = [part for part in re.split(r"[+/=_.~-]", value) if len(part) >= 4]
    to_digits = [sum(a.isdigit() != b.isdigit() for a, b in pairwise(part)) for part in parts]
    if sum(to_digits) >= 5 or any(
        changes >= 3 and len(part) >= 8 for changes, part in zip(to_digits, parts, strict=True)
    ):
        return True
    return any(
        len(part) >= 20
        and sum(_class(a) != _class(b) for a, b in pairwise(part)) >= 0.4 * len(part)
        for part in parts
    )


def _entropy(value: str) -> float:
    """Shannon entropy of the value's characters, in bits a character."""
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)


def _class(character: str) -> int:
    return 0 if character.isdigit() else 1 if character.isupper() else 2


def _redact(secret: str) -> str:
    shown = min(SHOWN, len(secret) // 4)
    return f"{secret[:shown]}... ({len(secret)} characters)"
