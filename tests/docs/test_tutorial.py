"""docs/tutorial.md: the notebook is made of it, and its cells run.

``UPDATE_TUTORIAL=1 pytest -n0 PATH`` writes the notebook anew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
NOTEBOOK = PAGE.with_suffix(".ipynb")
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_FOLDER = """\
import os
from pathlib import Path

if Path.cwd().name == "docs":  # Jupyter starts where the notebook is
    os.chdir("..")
"""


def test_the_notebook_is_made_of_the_page() -> None:
    text = json.dumps(_notebook(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_TUTORIAL"):
        NOTEBOOK.write_text(text, encoding="utf-8")
    assert NOTEBOOK.read_text(encoding="utf-8") == text, "UPDATE_TUTORIAL=1 writes it anew"


@pytest.mark.slow
@pytest.mark.long
def test_its_cells_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (ROOT / "models" / "SmolLM2-135M-Instruct" / "model.safetensors").exists():
        pytest.skip("the embedded model is not here; `make model` makes it")
    for name in ("tools", "models", "data"):
        (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(tmp_path / "zenml"))
    names: dict[str, Any] = {}
    said = ""
    for cell in _notebook()["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        if source.startswith("!"):
            for command in source.splitlines():
                done = subprocess.run(
                    ["bash", "-c", command.removeprefix("!")], capture_output=True, text=True
                )
                assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
                said += done.stdout + done.stderr
        else:
            exec(compile(source, "cell", "exec"), names)
    assert "tutorial/qa.csv:536: completion is empty" in said
    assert "a run would train on this data" in said
    assert "production     promoted" in said
    assert (tmp_path / "outputs" / "compared" / "first--second.html").is_file()
    assert (tmp_path / "tutorial" / "production" / "adapter" / "adapter_config.json").is_file()


def _notebook() -> dict[str, Any]:
    """The page's text as cells of Markdown, its Python and its commands as cells that run."""
    cells: list[dict[str, Any]] = []
    page = PAGE.read_text(encoding="utf-8")
    setting = "Each cell runs as it stands."
    page = page.replace("The same as a notebook: [tutorial.ipynb](tutorial.ipynb).", setting)
    _add(cells, "code", _FOLDER)
    place = 0
    for block in _BLOCK.finditer(page):
        _add(cells, "markdown", page[place : block.start()])
        code = block[2] if block[1] == "python" else re.sub(r"^", "!", block[2].strip(), flags=re.M)
        _add(cells, "code", code)
        place = block.end()
    _add(cells, "markdown", page[place:])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _add(cells: list[dict[str, Any]], kind: str, text: str) -> None:
    if not text.strip():
        return
    code = {"execution_count": None, "outputs": []} if kind == "code" else {}
    source = text.strip().splitlines(keepends=True)
    cells.append(
        {"cell_type": kind, "id": f"cell-{len(cells)}", "metadata": {}, "source": source, **code}
    )
