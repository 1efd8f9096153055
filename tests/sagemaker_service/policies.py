"""Evaluating IAM policies: what a caller, or a job's role, may do by the documents it has.

The logic is IAM's for identity policies (an explicit Deny wins, then any Allow, else denied) over the
operators that the shipped policies use; another operator is an error, never passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Statement = Mapping[str, Any]
Context = Mapping[str, Any]

SHIPPED = Path(__file__).resolve().parents[2] / "docs" / "sagemaker"
EVERYTHING: list[Statement] = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]

_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda value, wanted: value == wanted,
    "StringNotEquals": lambda value, wanted: value != wanted,
    "StringLike": lambda value, wanted: _like(value, wanted),
    "ArnLike": lambda value, wanted: _like(value, wanted),
    "ArnEquals": lambda value, wanted: _like(value, wanted),
    "Bool": lambda value, wanted: value.lower() == wanted.lower(),
    "NumericLessThanEquals": lambda value, wanted: float(value) <= float(wanted),
    "NumericEquals": lambda value, wanted: float(value) == float(wanted),
}


def shipped(name: str, values: Mapping[str, str]) -> list[Statement]:
    """The statements of a policy under docs/sagemaker/, its placeholders filled.

    Raises:
        KeyError: A placeholder has no value.
    """
    text = (SHIPPED / name).read_text(encoding="utf-8")
    filled = re.sub(r"<(\w+)>", lambda match: values[match[1]], text)
    return list(json.loads(filled)["Statement"])


def allowed(
    statements: Iterable[Statement], action: str, resource: str, context: Context | None = None
) -> bool:
    """Whether the statements allow an action on a resource.

    Args:
        statements: Of all policies of the identity.
        action: Such as "s3:GetObject".
        resource: Its ARN, or "*".
        context: Condition keys of the request; a value is a string, a number or a list.
    """
    matching = [
        statement["Effect"]
        for statement in statements
        if _concerns(statement, action, resource)
        and _conditions_hold(statement.get("Condition", {}), context or {})
    ]
    return "Deny" not in matching and "Allow" in matching


def _concerns(statement: Statement, action: str, resource: str) -> bool:
    if "NotAction" in statement:
        concerned = not _any_like(action.lower(), _lower(statement["NotAction"]))
    else:
        concerned = _any_like(action.lower(), _lower(statement["Action"]))
    return concerned and _any_like(resource, _as_list(statement["Resource"]))


def _conditions_hold(conditions: Mapping[str, Mapping[str, Any]], context: Context) -> bool:
    return all(
        _holds(operator, context.get(key), [str(each) for each in _as_list(wanted)])
        for operator, keys in conditions.items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, given: Any, wanted: Sequence[str]) -> bool:
    quantifier, _, name = operator.rpartition(":")
    base = name.removesuffix("IfExists")
    if base not in _COMPARE:
        raise NotImplementedError(f"the condition operator {operator}")
    compare = _COMPARE[base]
    values = [] if given is None else [str(each) for each in _as_list(given)]
    if quantifier == "ForAllValues":
        return all(any(compare(value, each) for each in wanted) for value in values)
    if not values:
        return name.endswith("IfExists")
    return any(compare(value, each) for value in values for each in wanted)


def _any_like(value: str, patterns: Iterable[str]) -> bool:
    return any(_like(value, pattern) for pattern in patterns)


def _like(value: str, pattern: str) -> bool:
    """IAM's wildcards: ``*`` for any characters, ``?`` for one; brackets mean nothing."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, value, re.DOTALL) is not None


def _lower(patterns: Any) -> list[str]:
    return [pattern.lower() for pattern in _as_list(patterns)]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
