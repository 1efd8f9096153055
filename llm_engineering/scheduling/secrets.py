"""ZenML secrets in settings: ``{{name.key}}`` stands for a value that no file of ours holds."""

from __future__ import annotations

import re

from llm_engineering.errors import SecretError

_REFERENCE = re.compile(r"\{\{\s*([^{}.\s]+)\.([^{}\s]+)\s*\}\}")


class Secrets:
    """Fills references in, and takes the values out of what is said afterwards."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def fill(self, text: str) -> str:
        """A text with the value of each secret in the place of its reference.

        Raises:
            SecretError: ZenML has no such secret, or it no such key.
        """
        return _REFERENCE.sub(lambda found: self._value(*found.groups()), text)

    def hide(self, text: str) -> str:
        """A text without the values that were filled in."""
        for value in self._values:
            text = text.replace(value, "***")
        return text

    def _value(self, name: str, key: str) -> str:
        from zenml.client import Client

        try:
            values = Client().get_secret(name).secret_values
        except KeyError:
            raise SecretError(
                f"schedule: there is no ZenML secret {name}: zenml secret create {name} --{key}=..."
            ) from None
        if key not in values:
            raise SecretError(
                f"schedule: the ZenML secret {name} has no key {key}; it has: "
                f"{', '.join(sorted(values)) or 'none'}"
            )
        self._values.add(values[key])
        return values[key]
