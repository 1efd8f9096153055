"""docs/reference: the configuration and the command line, written from the code, and current.

``UPDATE_REFERENCE=1 pytest -n0 PATH`` writes the pages anew.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from error_classes import error_classes

from llm_engineering.configuration.schema import Key, keys
from llm_engineering.errors import FinetuningError
from llm_engineering.scheduling.attempt import may_be_cured

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "reference"

CONFIGURATION = """\
# Configuration

Every key that a configuration takes, written by a test from the classes that check it
(`llm_engineering/configuration/`). In a terminal `tools/run.py --explain lora.r` says the same of one key, and
editors complete and check by `configs/schema.json`. Times are in seconds and lengths in tokens unless a
key's text says otherwise; *must be given* is what has no default.

"""
COMMAND_LINE = """\
# Command line

`poetry run python tools/run.py`, or `tools/run.py` alone, which finds the project's own Python. Written by a
test from the command itself; `tools/run.py --help` prints it too. In bash, from this folder, this line completes
its flags (for zsh and fish: `zsh_source`, `fish_source`):

```
eval "$(_RUN_PY_COMPLETE=bash_source tools/run.py)"
```

"""


def test_the_configuration_page_is_current() -> None:
    parts = [CONFIGURATION]
    for section, found in groupby(keys(), key=lambda key: key.name.partition(".")[0]):
        head, *rest = found
        parts += [f"## {section}\n\n{head.description}\n"]
        parts += ["| key | takes | default | what it is |\n|---|---|---|---|"]
        parts += [*map(_row, rest), ""]
    _require_current("configuration.md", "\n".join(parts))


def test_the_command_line_page_is_current() -> None:
    _require_current("command_line.md", _command_line())


def test_every_exit_code_of_the_code_is_in_the_table() -> None:
    page = (PAGES / "command_line.md").read_text(encoding="utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert told == {0, 1, 130, 143} | {kind.exit_code for kind in error_classes()}


@pytest.mark.parametrize("kind", FinetuningError.__subclasses__())
def test_an_errors_first_line_says_what_it_means(kind: type[FinetuningError]) -> None:
    assert (inspect.getdoc(kind) or "").splitlines()[0].endswith(".")


def _require_current(name: str, text: str) -> None:
    file = PAGES / name
    if os.environ.get("UPDATE_REFERENCE"):
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text, "UPDATE_REFERENCE=1 writes it anew"


def _row(key: Key) -> str:
    default = "must be given" if key.default is None else key.default
    if key.default not in (None, "empty", "its keys' own"):
        default = f"`{default}`"
    return f"| `{key.name}` | {_cell(key.values)} | {_cell(default)} | {_cell(key.description)} |"


def _cell(text: str) -> str:
    """Text that a table's cell, Markdown and HTML leave as it is; code in backticks stays code."""
    text = re.sub(r"\(matches (.*?)\)(?=$|, or )", r"(matches `\1`)", text.replace("``", "`"))
    parts = text.replace("\n", " ").split("`")
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"([\\*_<\[])", r"\\\1", parts[index])
    return "`".join(parts).replace("|", "\\|")


def _command_line() -> str:
    script = _script()
    flags = {
        option.opts[-1].removeprefix("--").replace("-", "_"): option
        for option in script.main.params
        if not getattr(option, "hidden", True)
    }
    parts = [COMMAND_LINE]
    for title, names in script._GROUPS.items():
        parts += [f"## {title}\n\n| flag | what it does | goes with |\n|---|---|---|"]
        parts += [_flag(script, name, flags.pop(name)) for name in names.split()] + [""]
    assert not flags, "a flag is in no group"
    return "\n".join([*parts, _exit_codes(), ""])


def _flag(script: ModuleType, name: str, option: Any) -> str:
    metavar = "" if option.is_flag else option.make_metavar(_context(script))
    shown = f"{option.opts[-1]} {metavar}".strip()
    owners = script._BELONGS_TO.get(name, ())
    help_text = option.help.replace("  [default", " [default")
    with_ = ", ".join(f"`{script._flag(owner)}`" for owner in owners)
    return f"| {_cell(f'`{shown}`')} | {_cell(help_text)} | {with_} |"


def _context(script: ModuleType) -> Any:
    import click

    return click.Context(script.main)


def _exit_codes() -> str:
    lines = [
        "## Exit codes\n",
        "What each error means, and what to do about it: [troubleshooting](../troubleshooting.md). *Tried again*: a",
        "schedule makes another attempt after it (`schedule.retries`), since time may cure it.\n",
        "| code | what happened | errors | tried again |",
        "|--:|---|---|---|",
        "| 0 | It is done. | | |",
        "| 1 | Something that the project did not foresee; the traceback says what. | | yes |",
    ]
    kinds: dict[int, list[type[FinetuningError]]] = {}
    for kind in error_classes():
        kinds.setdefault(kind.exit_code, []).append(kind)
    for code in sorted(code for code in kinds if code != 1):
        # Of the classes with one code, those that chose it say what it means.
        own = [kind for kind in kinds[code] if "exit_code" in vars(kind)]
        meaning = " ".join((inspect.getdoc(kind) or "").splitlines()[0] for kind in own)
        names = ", ".join(f"`{kind.__name__}`" for kind in sorted(kinds[code], key=str))
        again = "yes" if may_be_cured(code) else "no"
        meaning += " Or the command was mistyped." if code == 2 else ""
        lines.append(f"| {code} | {_cell(meaning)} | {names} | {again} |")
    lines += [
        "| 130 | Ended by Ctrl-C; a training saves a checkpoint first, and `--resume` goes on from it. | `InterruptedRunError`, `TrainingStoppedError` | |",
        "| 143 | Likewise, by SIGTERM. | | |",
    ]
    return "\n".join(lines)


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_script", ROOT / "tools" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
