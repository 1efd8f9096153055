"""The generator of data/stdlib_qa, and the files it wrote."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "generate_stdlib_qa.py"
DATA = ROOT / "data" / "stdlib_qa"
FILES = ("train.jsonl", "held_out.jsonl")

# Two hash seeds, so that an order taken from a set would differ between the runs.
HASH_SEEDS = ("1", "2")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_stdlib_qa", SCRIPT)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {SCRIPT}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load_script()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Run the command once for each of `HASH_SEEDS`, and return the two output folders."""
    folders = []
    for seed in HASH_SEEDS:
        folder = tmp_path_factory.mktemp(f"stdlib_qa_{seed}")
        subprocess.run(
            [sys.executable, str(SCRIPT), "--output-dir", str(folder)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        folders.append(folder)
    return folders


@pytest.fixture(scope="module", params=["written now", "committed"])
def folder(request: pytest.FixtureRequest, written: list[Path]) -> Path:
    return written[0] if request.param == "written now" else DATA


def read_rows(folder: Path, name: str) -> list[dict[str, str]]:
    text = (folder / name).read_text(encoding="utf-8")
    assert text.endswith("}\n")
    return [json.loads(line) for line in text.splitlines()]


def all_rows(folder: Path) -> list[dict[str, str]]:
    return [row for name in FILES for row in read_rows(folder, name)]


def readme() -> str:
    return (DATA / "README.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------- the files


@pytest.mark.parametrize("name", FILES)
def test_two_runs_write_the_same_bytes(written: list[Path], name: str) -> None:
    first, second = ((folder / name).read_bytes() for folder in written)
    assert first == second


@pytest.mark.parametrize("name", FILES)
def test_the_python_named_in_the_readme_writes_the_committed_bytes(
    written: list[Path], name: str
) -> None:
    match = re.search(r"CPython (\d+\.\d+\.\d+) on (\w+)", readme())
    assert match
    running = (platform.python_version(), platform.system())
    if running != match.groups():
        pytest.skip(f"rows depend on the Python: made with {match.groups()}, running {running}")
    assert (written[0] / name).read_bytes() == (DATA / name).read_bytes()


def test_the_readme_gives_the_row_counts() -> None:
    for name in FILES:
        rows = read_rows(DATA, name)
        modules = {row["module"] for row in rows}
        assert f"| `{name}` | {len(rows):,} | {len(modules)} |" in readme()


def test_columns_are_non_empty_strings(folder: Path) -> None:
    for row in all_rows(folder):
        assert list(row) == ["instruction", "response", "module"]
        assert all(
            isinstance(value, str) and value == value.strip() != "" for value in row.values()
        )


def test_no_module_and_no_answer_is_in_both_files(folder: Path) -> None:
    train, held_out = (read_rows(folder, name) for name in FILES)
    for column in ("module", "response", "instruction"):
        assert not {row[column] for row in train} & {row[column] for row in held_out}


def test_about_a_tenth_is_held_out_and_its_first_64_rows_are_varied(folder: Path) -> None:
    held_out = read_rows(folder, "held_out.jsonl")
    assert 0.08 < len(held_out) / len(all_rows(folder)) < 0.12
    assert len({row["module"] for row in held_out[:64]}) >= 10


def test_no_question_and_no_answer_is_there_twice(folder: Path) -> None:
    rows = all_rows(folder)
    for column in ("instruction", "response"):
        assert len({row[column] for row in rows}) == len(rows)


def test_answers_are_whole_sentences_within_the_bounds(folder: Path) -> None:
    for row in all_rows(folder):
        assert 50 <= len(row["response"]) <= 600, row
        assert re.search(r"[.!?][)\"'`]?$", row["response"]), row


@pytest.mark.parametrize(
    "unwanted",
    [
        r"0x[0-9a-fA-F]{5,}",
        r"(?<![\w.<])/(usr|home|root|tmp|etc|var|opt)\b",
        r"\b[A-Z]:\\",
        r">>>",
        r":\w+:`",
        r"help\(type\(self\)\)",
        r"__init__\(.*\) ->",
    ],
    ids=["address", "posix path", "windows path", "doctest", "role", "boilerplate", "init"],
)
def test_answers_are_free_of(folder: Path, unwanted: str) -> None:
    found = [row for row in all_rows(folder) if re.search(unwanted, row["response"])]
    assert found == []


# ---------------------------------------------------------------- one docstring


@pytest.mark.parametrize(
    ("docstring", "answer"),
    [
        pytest.param(
            "spam(eggs) -> int\n\nReturn the number of the eggs\nthat are left in the carton",
            "Return the number of the eggs that are left in the carton.",
            id="signature line left out, lines joined, full stop added",
        ),
        pytest.param(
            "Return the eggs of :func:`~farm.spam` and of ``ham``, in their order.",
            "Return the eggs of `spam` and of `ham`, in their order.",
            id="markup made plain",
        ),
        pytest.param(
            "Return every egg of the carton, from small to large.\n\n>>> spam()\n1\n\nMore text.",
            "Return every egg of the carton, from small to large.",
            id="nothing from the doctest on",
        ),
        pytest.param(
            "Return every egg of the carton. See ham(). They are\ncounted by size, e.g.:\n\n    s",
            None,
            id="too short once the unfinished sentence is gone",
        ),
        pytest.param("Initialize self.  See help(type(self)) for accurate signature.", None),
        pytest.param("Read the list of all the eggs from /etc/eggs.conf at every call.", None),
        pytest.param("Return an egg.", None, id="too short"),
        pytest.param(None, None),
    ],
)
def test_answer_from_docstring(docstring: str | None, answer: str | None) -> None:
    assert generator.answer_from_docstring(docstring, "farm.spam") == answer


def test_a_long_paragraph_is_cut_at_a_sentence() -> None:
    sentence = "This sentence has forty-four characters now."
    answer = generator.answer_from_docstring(" ".join([sentence] * 20), "farm.spam")
    assert answer == " ".join([sentence] * 13)  # 13 * 44 + 12 spaces = 584 of 600 characters


NO_VALUE = object()


def plain(text: str, width: int = 70, *, fill: str | None = None, **options: str) -> None: ...


def with_object_default(text: str, fill: object = NO_VALUE) -> None: ...


def with_path_default(text: str, program: str = sys.executable) -> None: ...


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (plain, "farm.spam(text, width=70, *, fill=None, **options)"),
        (with_object_default, None),
        (with_path_default, None),
    ],
)
def test_portable_signature(function: object, signature: str | None) -> None:
    documented = generator.Documented("farm.spam", "farm", "function", function)
    assert generator.portable_signature(documented) == signature
