"""Tasks of EleutherAI's lm-evaluation-harness: found, and refused, before a weight is read."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_engineering.errors import ConfigError, SetupError

_KEY = "evaluate.benchmarks"


def is_file(name: str) -> bool:
    """Whether a benchmark is a task's YAML file, rather than the name of one of the harness's own."""
    return name.endswith((".yaml", ".yml"))


def require_benchmarks(names: Sequence[str]) -> None:
    """Check that the harness is installed and knows each task; whether its data can be had is not known.

    Raises:
        SetupError: The group ``benchmarks`` is not installed.
        ConfigError: There is no such task, or a file is none.
    """
    if not names:
        return
    if importlib.util.find_spec("lm_eval") is None:
        raise SetupError(
            f"{_KEY}: needs lm-evaluation-harness, which is not installed: run `poetry install --with "
            "benchmarks`"
        )
    for name in filter(is_file, names):
        task_of_file(name)
    wanted = [name for name in names if not is_file(name)]
    if not wanted:
        return
    import difflib

    from lm_eval.tasks import TaskManager

    known = set(TaskManager().all_tasks)
    for name in wanted:
        if name not in known:
            alike = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {', '.join(alike)}?" if alike else ""
            raise ConfigError(f"{_KEY}: the harness has no task {name}{hint}")


def task_of_file(name: str) -> dict[str, Any]:
    """A task's configuration, read from its YAML file.

    Raises:
        ConfigError: It cannot be read, or names no task.
    """
    from lm_eval.tasks._yaml_loader import load_yaml

    path = Path(name).expanduser()
    if not path.is_file():
        raise ConfigError(f"{_KEY}: there is no file {name}; name a task's YAML file")
    try:
        values = load_yaml(path)
    except Exception as error:  # a task may import functions of its own
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{_KEY}: {name} cannot be read as a task: {reason}") from None
    if not isinstance(values, dict) or not isinstance(values.get("task"), str):
        raise ConfigError(f"{_KEY}: {name} has no key task, which names it")
    return dict(values)
