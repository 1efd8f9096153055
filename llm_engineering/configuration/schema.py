"""The configuration as JSON Schema, for editors, and what it says of one key, for people."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ConfigError

_RANGES = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
    "minItems": "items: at least",
    "minLength": "characters: at least",
    "pattern": "matches",
}
_NO_DEFAULT = object()


@dataclass(frozen=True)
class Key:
    """One key of the configuration."""

    name: str
    """With its sections, by dots; an item of a list has its list's name."""
    values: str
    """What it takes, in words."""
    default: str | None
    """As YAML writes it; None: it must be given."""
    description: str


def json_schema() -> dict[str, Any]:
    """The configuration's JSON Schema (draft 2020-12), as ``configs/schema.json`` holds it."""
    schema = FinetuningConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def explain(name: str) -> list[Key]:
    """A key, or all keys of a section.

    Args:
        name: With dots, e.g. ``lora.r`` or ``data.sources``; an index of a list may be left out.

    Raises:
        ConfigError: There is none of this name; says which are alike.
    """
    wanted = ".".join(part for part in name.split(".") if not part.isdigit())
    known = list(keys())
    found = [key for key in known if key.name == wanted]
    below = [key for key in known if key.name.startswith(f"{wanted}.")]
    if not found and not below:
        names = {part for key in known for part in (key.name, key.name.partition(".")[0])}
        ends = {key.name for key in known if key.name.rpartition(".")[2] == wanted}
        alike = sorted(ends) or difflib.get_close_matches(wanted, names)
        hint = f"; did you mean {' or '.join(alike)}?" if alike else ""
        raise ConfigError(f"--explain: the configuration has no key {name}{hint}")
    return found + below


def keys() -> Iterator[Key]:
    """All keys, in the order of the configuration."""
    schema = json_schema()
    yield from _keys(schema, schema["$defs"], "")


def _keys(schema: dict[str, Any], kinds: dict[str, Any], before: str) -> Iterator[Key]:
    for name, said in schema.get("properties", {}).items():
        default = said.get("default", _NO_DEFAULT)
        if default is _NO_DEFAULT:
            empty = "its keys' own" if _is_section(said, kinds) else "empty"
            told = None if name in schema.get("required", ()) else empty
        else:
            told = json.dumps(default, ensure_ascii=False)
        yield Key(
            name=before + name,
            values=_values(said, kinds),
            default=told,
            description=said.get("description") or _resolved(said, kinds).get("description", ""),
        )
        for section in _sections(said, kinds):
            yield from _keys(section, kinds, f"{before}{name}.")


def _resolved(said: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    reference = said.get("$ref")
    found: dict[str, Any] = kinds[reference.rpartition("/")[2]] if reference else said
    return found


def _is_section(said: dict[str, Any], kinds: dict[str, Any]) -> bool:
    return "properties" in _resolved(said, kinds)


def _sections(said: dict[str, Any], kinds: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What has keys of its own in what a key takes: itself, its items, or one of several kinds."""
    said = _resolved(said, kinds)
    if _is_section(said, kinds):
        yield said
    several = (*said.get("anyOf", ()), *said.get("oneOf", ()))
    for inner in (*several, *([said["items"]] if "items" in said else ())):
        yield from _sections(inner, kinds)


def _values(said: dict[str, Any], kinds: dict[str, Any]) -> str:
    said = _resolved(said, kinds)
    if several := said.get("anyOf") or said.get("oneOf"):
        return ", or ".join(dict.fromkeys(_values(each, kinds) for each in several))
    if "enum" in said or "const" in said:
        return ", ".join(json.dumps(value) for value in said.get("enum", [said.get("const")]))
    if _is_section(said, kinds):
        return "a section"
    kind = said.get("type", "any value")
    if kind == "array":
        return f"a list of: {_values(said.get('items', {}), kinds)}" + _ranges(said)
    if kind == "object":
        inner = said.get("additionalProperties")
        return f"a mapping to: {_values(inner, kinds)}" if isinstance(inner, dict) else "a mapping"
    return str(kind) + _ranges(said)


def _ranges(said: dict[str, Any]) -> str:
    found = [f"{words} {said[key]}" for key, words in _RANGES.items() if key in said]
    return f" ({', '.join(found)})" if found else ""
