"""What scorers need, checked before a row is read: packages, the user's functions, the judge's key."""

from __future__ import annotations

import importlib.util
import os

from llm_engineering.configuration.answers import AnswersSettings
from llm_engineering.errors import ConfigError, SetupError
from llm_engineering.scoring.user_function import load_function, source_digest

_PACKAGES = {"chrf": "sacrebleu", "judge": "openai"}


def is_installed(kind: str) -> bool:
    """Whether a scorer's optional package is there, without importing it."""
    package = _PACKAGES.get(kind)
    return package is None or importlib.util.find_spec(package) is not None


def require_scorers(settings: AnswersSettings | None) -> None:
    """Check that every scorer will be able to score in this process.

    Raises:
        SetupError: A package of the optional group ``scoring`` is missing.
        ConfigError: A function of the user's own cannot be imported, or the judge's key is not set.
    """
    if settings is None:
        return
    for number, one in enumerate(settings.scorers):
        key = f"evaluate.answers.scorers.{number}"
        if not is_installed(one.scorer):
            raise SetupError(
                f"{key}: {one.scorer} needs the package {_PACKAGES[one.scorer]}, which is not "
                "installed: run `poetry install --with scoring`"
            )
        if one.function is not None:
            load_function(one.function, key)
        if one.scorer == "judge":
            _require_key(settings)


def scorer_digests(settings: AnswersSettings | None) -> list[str]:
    """Digests of the files that functions of the user's own are in, which the cache must notice."""
    functions = (
        [] if settings is None else [one.function for one in settings.scorers if one.function]
    )
    key = "evaluate.answers.scorers"
    return [source_digest(load_function(named, key)) for named in functions]


def _require_key(settings: AnswersSettings) -> None:
    judge = settings.judge
    if judge is not None and judge.key_variable and not os.environ.get(judge.key_variable):
        raise ConfigError(
            f"evaluate.answers.judge.key_variable: {judge.key_variable} is not set in the "
            "environment; set it to the endpoint's key, or say key_variable: null where it wants none"
        )
