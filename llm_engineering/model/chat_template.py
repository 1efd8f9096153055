"""Choosing the one chat template of a run."""

from __future__ import annotations

from pathlib import Path

from llm_engineering.errors import ConfigError

_SHIPPED = Path(__file__).parent / "chat_templates"


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
