"""Reading a configuration: YAML file, ``--set`` overrides, validation, messages that help."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from yaml.reader import ReaderError

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.errors import ConfigError

Location = tuple[str | int, ...]


OWN_HELD_OUT = 0.1
"""Share of a given source's rows that is held out: the configured rows are of other data."""


def load_config(
    path: Path, overrides: Sequence[str] = (), data: str | None = None
) -> FinetuningConfig:
    """Read and validate a configuration file.

    Args:
        path: A YAML file.
        overrides: ``key=value`` strings with a dotted key, e.g. ``train.learning_rate=1e-4``;
            the value is read as YAML and validated like the file's own.
        data: A source in place of the configured ones, of which overrides may say more, e.g.
            ``data.sources.0.form=messages``. ``OWN_HELD_OUT`` of it is held out, unless they name
            held-out rows.

    Raises:
        ConfigError: The file is missing or not YAML, or a key or value is wrong. All wrong
            values are reported at once, each with its line (or ``--set``) and what to do.
    """
    values, lines = _read_yaml(path)
    origins = {location: f"{path}:{line}" for location, line in lines.items()}
    if data is not None:
        _use_data(values, origins, data, overrides)
    _choose_held_out(values, origins, overrides)
    for override in overrides:
        location = _apply_override(values, override)
        # What the override replaced no longer comes from the file.
        for replaced in [known for known in origins if known[: len(location)] == location]:
            del origins[replaced]
        origins[location] = f"--set {override}"
    if data is None:
        _require_held_out_of_its_own(values, path, overrides)
    try:
        return FinetuningConfig.model_validate(values)
    except ValidationError as error:
        messages = [
            _explain(dict(problem), origins, str(path))
            for problem in error.errors(include_url=False)
        ]
        raise ConfigError("\n".join(messages)) from None


def own_data(source: str, overrides: Sequence[str]) -> list[str]:
    """A source in place of the configured ones, in the words of --set, which others can repeat.

    ``OWN_HELD_OUT`` of it is held out, unless the other overrides name held-out rows.
    """
    said = [f"data.sources={json.dumps([{'source': source}], ensure_ascii=False)}"]
    if not _names_held_out(overrides):
        said.append(f"data.held_out={json.dumps({'fraction': OWN_HELD_OUT})}")
    return [*said, *overrides]


def _names_held_out(overrides: Sequence[str]) -> bool:
    return any(
        override.partition("=")[0].strip() in ("data.held_out.source", "data.held_out")
        for override in overrides
    )


def to_yaml(config: FinetuningConfig, *, schedule: bool = False) -> str:
    """The resolved configuration as YAML; reading it back gives an equal configuration.

    Args:
        config: The configuration.
        schedule: With the section ``schedule``, which no run depends on and which may hold
            secrets; otherwise it is left out.
    """
    values = config.model_dump(mode="json")
    if schedule:
        values["schedule"] = config.schedule.model_dump(mode="json")
        values = {name: values[name] for name in FinetuningConfig.model_fields}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def without_schedule(overrides: Sequence[str]) -> list[str]:
    """Values of --set without those of the section ``schedule``, for what others see or what is stored.

    No run depends on them, and an alert's command or address may be a secret.
    """
    return [
        one for one in overrides if one.partition("=")[0].partition(".")[0].strip() != "schedule"
    ]


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Location, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read the configuration ({error.strerror}); give --config a YAML file"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
        lines = dict(_lines(node, (), path)) if node is not None else {}
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{path}:{line}: is not valid YAML: holds the control character "
            f"#x{error.character:04x}; remove it"
        ) from None
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        problem = ", ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{where}: is not valid YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{path}: is not valid YAML: is nested too deeply") from None
    except ValueError as error:  # a date such as 2026-13-01, which PyYAML tries to build
        raise ConfigError(f"{path}: is not valid YAML: {error}; quote the value") from None
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path}: holds {_kind(values)}, expected sections such as 'model:' and 'data:'"
        )
    return values, lines


def _lines(node: yaml.Node, location: Location, path: Path) -> Iterator[tuple[Location, int]]:
    """Yield the line of every key; refuse a key given twice, which YAML would drop in silence."""
    yield location, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                dotted = _dotted((*location, key.value))
                raise ConfigError(
                    f"{path}:{key.start_mark.line + 1}: {dotted} is given twice; keep one"
                )
            seen.add(key.value)
            yield from _lines(value, (*location, key.value), path)
            yield (*location, key.value), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _lines(value, (*location, index), path)


def _use_data(
    values: dict[str, Any], origins: dict[Location, str], data: str, overrides: Sequence[str]
) -> None:
    """Put a source, and held-out rows of its own, in the place of the configured ones."""
    section = values.get("data")
    if not isinstance(section, dict):
        section = values["data"] = {}
    section["sources"] = [{"source": data}]
    section["held_out"] = {} if _names_held_out(overrides) else {"fraction": OWN_HELD_OUT}
    for replaced in [one for one in origins if one[1:2] in (("sources",), ("held_out",))]:
        if replaced[0] == "data":
            origins[replaced] = f"the source {data!r}"


def _choose_held_out(
    values: dict[str, Any], origins: dict[Location, str], overrides: Sequence[str]
) -> None:
    """A fraction given with --set takes the place of the file's held-out source, and the other way."""
    keys = {override.partition("=")[0].strip() for override in overrides}
    section = values.get("data")
    held_out = section.get("held_out") if isinstance(section, dict) else None
    if not isinstance(held_out, dict):
        return
    of_source = ["source", "form", "columns", "split", "subset", "revision"]
    for given, gone in (("fraction", of_source), ("source", ["fraction", "group"])):
        other = f"data.held_out.{gone[0]}"
        if f"data.held_out.{given}" in keys and other not in keys:
            for name in gone:
                held_out.pop(name, None)
                origins.pop(("data", "held_out", name), None)


def _require_held_out_of_its_own(
    values: dict[str, Any], path: Path, overrides: Sequence[str]
) -> None:
    """Refuse other training data beside the file's held-out rows, which may be of another task.

    Raises:
        ConfigError: The data are given with --set, and nothing is said of the held-out rows.
    """
    keys = {override.partition("=")[0].strip() for override in overrides}
    ours = {key for key in keys if re.fullmatch(r"data\.sources(\.\d+(\.source)?)?", key)}
    said = any(key == "data.held_out" or key.startswith("data.held_out.") for key in keys)
    held_out = values["data"].get("held_out") if isinstance(values.get("data"), dict) else None
    source = held_out.get("source") if isinstance(held_out, dict) else None
    if ours and not said and source:
        raise ConfigError(
            f"--set {min(ours)}: the held-out rows are still those of {path} "
            f"(data.held_out.source: {source}), which may be of another task; say which to take, for "
            "example --set data.held_out.fraction=0.1 (a tenth of the rows) or --set "
            f"data.held_out.source={source}"
        )


def _apply_override(values: dict[str, Any], override: str) -> Location:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {override}: expected key=value with a dotted key, "
            "for example --set train.learning_rate=1e-4"
        )
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value; quote it") from None
    target: Any = values
    location: list[str | int] = []
    for part in parts[:-1]:
        step, target = _descend(target, part, override)
        location.append(step)
        if not isinstance(target, dict | list):
            raise ConfigError(
                f"--set {override}: {_dotted(tuple(location))} holds a value, not a section"
            )
    if isinstance(target, list):
        index, _ = _descend(target, parts[-1], override)
        target[int(index)] = value
        return (*location, index)
    target[parts[-1]] = value
    return (*location, parts[-1])


def _descend(target: Any, part: str, override: str) -> tuple[str | int, Any]:
    if isinstance(target, list):
        if not part.isdecimal() or int(part) >= len(target):
            raise ConfigError(
                f"--set {override}: {part!r} is not an index into a list of {len(target)} "
                "(counted from 0)"
            )
        return int(part), target[int(part)]
    if target.get(part) is None:
        target[part] = {}
    return part, target[part]


def _explain(problem: dict[str, Any], origins: dict[Location, str], path: str) -> str:
    """One line for one pydantic error: where, key, what is wrong, value seen, what to do."""
    location: Location = tuple(problem["loc"])
    if problem["type"] != "extra_forbidden":
        location = _without_branches(location)
    else:
        location = (*_without_branches(location[:-1]), location[-1])
    key = _dotted(location)
    where = _where(location, origins, path)
    if problem["type"] == "extra_forbidden":
        return f"{where}: {key}: unknown key{_nearest(location)}"
    if problem["type"] == "missing":
        return f"{where}: {key}: is required; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "model_type":
        message = f"expected a section with keys such as {_example_key(location)}"
    message = message[0].lower() + message[1:]
    seen = problem["input"]
    if isinstance(seen, dict | list) or not key:
        return f"{where}: {key}: {message}" if key else f"{where}: {message}"
    return f"{where}: {key}: {message} (got {'null' if seen is None else repr(seen)})"


def _without_branches(location: Location) -> Location:
    """A problem's location without a union's branch names (``list[str]``), which are pydantic's."""
    kept: Location = ()
    for part in location:
        section = _section_at(kept)
        if isinstance(part, int) or (section is not None and part in section.model_fields):
            kept = (*kept, part)
    return kept


def _where(location: Location, origins: dict[Location, str], path: str) -> str:
    """Where a value comes from; where its own place is not known, that of the section around it."""
    if location not in origins:
        for inner, origin in origins.items():  # a --set that built the value piece by piece
            if location and inner[: len(location)] == location:
                return origin
    while location not in origins and location:
        location = location[:-1]
    return origins.get(location, path)


def _example_key(location: Location) -> str:
    section = _section_at(location)
    return _dotted((*location, next(iter(section.model_fields)))) if section else "model.id"


def _kind(value: Any) -> str:
    return {dict: "sections", list: "a list", type(None): "nothing"}.get(type(value), "one value")


def _nearest(location: Location) -> str:
    """'; did you mean x?' where x is a known key in the same section, else any section's key."""
    section = _section_at(location[:-1])
    names = list(section.model_fields) if section else []
    prefix = _dotted(location[:-1])
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {prefix + '.' if prefix else ''}{close[0]}?"
    elsewhere = [
        f"{top}.{name}"
        for top, field in FinetuningConfig.model_fields.items()
        if (model := _model_of(field.annotation)) is not None
        for name in model.model_fields
        if name == location[-1]
    ]
    if elsewhere:
        return f"; did you mean {elsewhere[0]}?"
    return f"; known here: {', '.join(names)}"


def _section_at(location: Location) -> type[BaseModel] | None:
    section: type[BaseModel] | None = FinetuningConfig
    for part in location:
        if isinstance(part, int):
            continue
        if section is None or part not in section.model_fields:
            return None
        section = _model_of(section.model_fields[part].annotation)
    return section


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation, however deep: ``list[Annotated[str | Section, ...]]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_of, get_args(annotation))), None)


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location)
