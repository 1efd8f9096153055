"""The section ``evaluate.answers``: held-out answers that are generated, and how they are scored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from llm_engineering.configuration.section import Name, PositiveInt, Section, Seed, one_of

ScorerKind = Literal[
    "exact", "contains", "regex", "json", "rouge_l", "chrf", "tool_call", "python", "judge"
]
KINDS: tuple[ScorerKind, ...] = get_args(ScorerKind)
_ARGUMENTS: dict[str, str] = {"regex": "pattern", "json": "json_schema", "python": "function"}
"""The key that belongs to one kind alone; ``{regex: X}`` is short for its kind and this."""
_NEEDED = {"regex", "python"}
_FOLDS_CASE = {"exact", "contains"}
VARIABLE = r"^[A-Z_][A-Z0-9_]*$"
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ScorerSettings(Section):
    """One way to score an answer: a scorer's name, or ``{NAME: ARGUMENT}`` with more keys beside it."""

    scorer: ScorerKind = Field(
        description="Which scorer. exact: equals the reference, white space at both ends aside. "
        "contains: the reference stands in it. regex: the pattern matches somewhere in it. json: is JSON, and "
        "valid by the schema if one is given. rouge_l, chrf: likeness to the reference, 0 to 1. "
        "tool_call: the same calls as the reference, names and arguments. python: a function of "
        "your own. judge: another model prefers it to the base model's answer.",
    )
    name: Name = Field(
        "",
        validate_default=True,
        description="What the score is called in report, metrics and registry.checks; default: the "
        "scorer's name, or that of the function.",
    )
    ignore_case: bool = Field(
        False, description="Of exact and contains: whether capital letters equal small ones."
    )
    pattern: str | None = Field(
        None,
        description="Of regex: a regular expression of Python's re; {regex: PATTERN} for short.",
    )
    json_schema: dict[str, Any] | None = Field(
        None,
        description="Of json: a JSON Schema, or the path of a file with one, which is read once, "
        "when the configuration is; {json: SCHEMA} for short.",
    )
    function: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Of python: MODULE:FUNCTION, called with answer, reference and prompt (texts); "
        "gives a number, where more is better; {python: MODULE:FUNCTION} for short.",
    )

    @model_validator(mode="before")
    @classmethod
    def _written_shortly(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"scorer": value}
        if isinstance(value, dict) and "scorer" not in value:
            kinds = [key for key in value if key in KINDS]
            if len(kinds) == 1:
                kind, rest = kinds[0], {k: v for k, v in value.items() if k != kinds[0]}
                argument = value[kind]
                if kind in _ARGUMENTS:
                    return {"scorer": kind, _ARGUMENTS[kind]: argument, **rest}
                if argument in (None, {}, True):
                    return {"scorer": kind, **rest}
                raise ValueError(f"{kind} takes no argument (got {argument!r}); write {kind} alone")
            raise ValueError(
                f"expected one scorer, of {', '.join(KINDS)} (got {', '.join(map(str, value))})"
            )
        return value

    @field_validator("scorer", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return one_of(value, KINDS)

    @field_validator("name", mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> Any:
        return value or str(info.data.get("scorer", "scorer"))

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is not a regular expression: {error}") from None
        return value

    @field_validator("json_schema", mode="before")
    @classmethod
    def _read_schema(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = _schema_of_file(Path(value))
        if isinstance(value, dict):
            _require_schema(value)
        return value

    @field_validator("function")
    @classmethod
    def _is_function_name(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError("expected MODULE:FUNCTION, for example my_scores:is_polite")
        return value

    @model_validator(mode="before")
    @classmethod
    def _named_by_function(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("name"):
            function = value.get("function", value.get("python"))
            if isinstance(function, str) and _FUNCTION.fullmatch(function):
                return {**value, "name": function.partition(":")[2]}
        return value

    @model_validator(mode="after")
    def _keys_belong_to_the_scorer(self) -> ScorerSettings:
        for kind, key in _ARGUMENTS.items():
            given = getattr(self, key) is not None
            if given and kind != self.scorer:
                raise ValueError(f"{key} belongs to {kind}, not to {self.scorer}; leave it out")
            if kind == self.scorer and kind in _NEEDED and not given:
                raise ValueError(f"{kind} needs its {key}: write {{{kind}: {key.upper()}}}")
        if self.ignore_case and self.scorer not in _FOLDS_CASE:
            raise ValueError(f"ignore_case belongs to exact and contains, not to {self.scorer}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Editors are told of both ways of writing one."""
        full = handler.resolve_ref_schema(handler(core_schema))
        properties = full["properties"]
        schema = properties["json_schema"]
        schema["anyOf"] = [{"type": "string"}, *schema["anyOf"]]
        short: dict[str, Any] = {kind: {**properties[key]} for kind, key in _ARGUMENTS.items()}
        for kind, said in short.items():
            said.pop("title", None)
            said.pop("default", None)
            said["description"] = f"The scorer {kind}, with its {_ARGUMENTS[kind]}."
        others: dict[str, Any] = {key: properties[key] for key in ("name", "ignore_case")}
        plain: dict[str, Any] = {
            kind: {"const": None, "description": f"The scorer {kind}, where keys stand beside it."}
            for kind in KINDS
            if kind not in _ARGUMENTS
        }
        brief: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {**short, **plain, **others},
            "minProperties": 1,
            "not": {"required": ["scorer"]},
        }
        names = [kind for kind in KINDS if kind not in _NEEDED]
        description = full.pop("description", "")
        full.pop("title", None)
        return {
            "title": "ScorerSettings",
            "description": description,
            "anyOf": [{"type": "string", "enum": names}, full, brief],
        }


class JudgeSettings(Section):
    """The model that the scorer ``judge`` asks, by OpenAI's chat completions protocol."""

    endpoint: str = Field(
        description="Base address, e.g. http://127.0.0.1:8000/v1; answers and references are sent "
        "there."
    )
    model: Annotated[str, Field(min_length=1)] = Field(description="The judge's name there.")
    key_variable: Annotated[str, Field(pattern=VARIABLE)] | None = Field(
        "OPENAI_API_KEY",
        description="Environment variable that holds the key, which is written nowhere; null: the "
        "endpoint wants none.",
    )
    criterion: Annotated[str, Field(min_length=1)] = Field(
        "Which answer is more correct and more useful, measured by the reference answer?",
        description="What the judge is asked of two answers.",
    )
    max_calls: PositiveInt = Field(
        200,
        description="Most requests of a run, repeated ones included; rows beyond are not judged. A "
        "row takes two.",
    )
    retries: Annotated[int, Field(ge=0, le=10)] = Field(
        4, description="Times that a request is repeated after 429, 5xx or a time-out."
    )
    timeout_s: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = Field(
        60.0, description="Longest wait for one reply, in seconds."
    )
    parameters: dict[str, Any] = Field(
        {"temperature": 0},
        description="Other parameters of each request, as the endpoint knows them.",
    )

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, value: Any) -> Any:
        given = value if isinstance(value, dict) else {}
        named, address = given.get("key_variable"), given.get("endpoint")
        # Here no message repeats the value, which may be a secret.
        if isinstance(address, str) and re.search(r"^[^/]*//[^/]*@|[?]", address):
            raise ValueError(
                "endpoint: an address with a user, a password or a query may hold a secret; put the "
                "key into the environment variable that key_variable names"
            )
        if isinstance(named, str) and not re.match(VARIABLE, named):
            raise ValueError(
                "key_variable is not the name of an environment variable (capital letters, digits and "
                "underscores); put the key into one, for example OPENAI_API_KEY, and name that"
            )
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if not re.match(r"https?://[^/\s]", value):
            raise ValueError("expected an address that begins with http:// or https://")
        return value.rstrip("/")

    @field_validator("parameters")
    @classmethod
    def _are_others(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted({"model", "messages", "stream", "n"} & value.keys())
        if taken:
            raise ValueError(f"{', '.join(taken)}: this project sets it; leave it out")
        return value


class AnswersSettings(Section):
    """Held-out rows that base model and adapter answer, and how the answers are scored."""

    rows: PositiveInt = Field(
        16, description="Held-out rows that are answered, evenly spread; all of them if fewer."
    )
    max_new_tokens: PositiveInt = Field(128, description="Longest answer, in tokens.")
    batch_size: PositiveInt = Field(8, description="Rows that are answered together.")
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] = Field(
        0.0, description="Of sampling; 0: greedy, the likeliest token each time."
    )
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="Of sampling: the likeliest tokens that make up this share."
    )
    top_k: PositiveInt | None = Field(None, description="Of sampling: so many likeliest tokens.")
    seed: Seed = Field(0, description="Of sampling.")
    scorers: Annotated[list[ScorerSettings], Field(min_length=1)] = Field(
        description="Scores of each answer, each a number where more is better; the report sorts rows "
        "by the first."
    )
    judge: JudgeSettings | None = Field(
        None, description="The model that the scorer judge asks; needed by that scorer alone."
    )

    @model_validator(mode="after")
    def _agree(self) -> AnswersSettings:
        names = [one.name for one in self.scorers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"scorers: two are called {twice[0]}; give one a name of its own, for example "
                f"{{regex: PATTERN, name: {twice[0]}_2}}"
            )
        asks = any(one.scorer == "judge" for one in self.scorers)
        if asks and self.judge is None:
            raise ValueError(
                "scorers names judge, and no judge is configured: add judge with its endpoint and "
                "model"
            )
        if self.judge is not None and not asks:
            raise ValueError(
                "judge is configured, and scorers does not name it; add it, or leave it out"
            )
        if not self.temperature and (self.top_p is not None or self.top_k is not None):
            raise ValueError(
                "top_p and top_k are of sampling, and temperature (0) is greedy; raise that, or "
                "leave them out"
            )
        return self

    @property
    def generation(self) -> dict[str, Any]:
        """How answers are made: equal settings make answers that can be compared."""
        return self.model_dump(mode="json", include=GENERATION)


GENERATION = {"rows", "max_new_tokens", "temperature", "top_p", "top_k", "seed"}
"""The settings of which answers depend; how they are scored changes none."""


def _schema_of_file(path: Path) -> Any:
    try:
        return json.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read the JSON Schema {path} ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _require_schema(schema: dict[str, Any]) -> None:
    from jsonschema import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for

    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        place = "/".join(map(str, error.absolute_path)) or "its root"
        raise ValueError(f"is not a JSON Schema: at {place}: {error.message}") from None
    remote = next((one for one in _references(schema) if not one.startswith("#")), None)
    if remote is not None:
        raise ValueError(
            f"$ref {remote!r} points out of the schema, and nothing is fetched; put it under $defs"
        )


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("$ref", "$dynamicRef") and isinstance(inner, str):
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
