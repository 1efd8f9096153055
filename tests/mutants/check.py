"""Mutation check: change a module in every small way, one at a time; do its tests notice?

``make mutants`` tries all modules of ``MODULES``, in an hour or two;
``make mutants ONLY=llm_engineering/registry/checks.py`` one of them, or several. A second call goes on:
what was killed stays so, survivors are tried again, and functions that changed are tried anew.

In the folder mutants/, mutmut's settings are those of [tool.mutmut] in pyproject.toml, and the tests that
answer for the module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "mutants"
LINKED = ("llm_engineering", "pipelines", "steps", "tools", "configs", "data", "tests")

MODULES: dict[str, tuple[str, ...]] = {
    "data/tokens/tokenization.py": (),
    "data/tokens/audit.py": (),
    "data/objective_rows/supervised_rows.py": (),
    "data/select/split.py": (),
    "data/select/selection.py": (
        "data/select/test_split.py",
        "data/objective_rows/test_preference_rows.py",
    ),
    "data/select/duplicates.py": (),
    "data/select/near.py": (),
    "data/select/bands.py": (),
    "export/parity.py": ("-export/test_parity.py", "export/test_parity_rules.py"),
    "export/stored_tensors.py": (),
    "export/merge.py": (
        "-export/test_merge.py::test_peak_memory_is_below_the_largest_shard",  # a process of its own
    ),
    "registry/checks.py": ("registry/test_scores.py",),
    "scoring/bootstrap.py": (),
    "registry/promotion.py": (
        "-registry/test_promotion.py",
        "registry/test_gate.py",
        "registry/test_scores.py",
    ),
    "registry/lock.py": (  # but for those that make a store
        "-registry/test_lock.py::test_a_second_holder_waits_for_the_first",
        "-registry/test_lock.py::test_a_lock_that_is_released_while_it_is_looked_at_is_taken",
    ),
    "model/finetuning/checkpoints.py": (),
    "training/identity.py": (),
    "training/run.py": ("-training/test_run.py", "training/test_resume.py"),
    "planning/batch_plan.py": ("planning/test_memory.py",),
    "planning/choice.py": (),
    "planning/hardware.py": (),
    "planning/host_memory.py": (),
    "planning/host_plan.py": (),
    "planning/memory.py": (),
    "planning/shape.py": (),
    "planning/sharded_plan.py": (),
    "planning/workload.py": (),
    "sagemaker/secret_scan.py": (
        # Of a copy of the repository, which git does not know.
        "-sagemaker/test_secret_scan.py::test_nothing_in_this_repository_looks_like_a_secret",
    ),
    "sagemaker/model_archive.py": (),
}
"""Modules below llm_engineering/, and the tests below tests/llm_engineering/ that answer for each
beside the one of its own name; those with a minus are left out."""


def main(only: list[str]) -> int:
    """Try the modules named, or all."""
    chosen = [name.removeprefix("llm_engineering/") for name in only] or list(MODULES)
    if unknown := [name for name in chosen if name not in MODULES]:
        print(f"not among the modules of {Path(__file__).name}: {', '.join(unknown)}")
        return 2
    rows = []
    for name in chosen:
        began = time.monotonic()
        prepare(name)
        if code := mutmut("run", "--max-children", "1"):
            return code
        rows.append(summary(name, time.monotonic() - began))
        print(*rows[-1:], sep="\n", flush=True)
    print(
        "\n| module | mutants | killed | survived | took |",
        "|---|--:|--:|--:|--:|",
        *rows,
        sep="\n",
    )
    return 0


def prepare(name: str) -> None:
    """Write mutmut's settings for a module, beside the project, and forget who survived last time."""
    (WORK / "tmp").mkdir(parents=True, exist_ok=True)
    for part in LINKED:
        if not (WORK / part).is_symlink():
            (WORK / part).symlink_to(ROOT / part)
    path = Path(name)
    named = [str(path.parent / f"test_{path.name}"), *MODULES[name]]
    left_out = [test[1:] for test in named if test.startswith("-")]
    tests = [test for test in named if not test.startswith("-") and test not in left_out]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    settings["mutmut"] |= {
        "only_mutate": [f"llm_engineering/{name}"],
        "pytest_add_cli_args_test_selection": [f"tests/llm_engineering/{test}" for test in tests],
    }
    settings["mutmut"]["pytest_add_cli_args"] += [
        f"--basetemp={WORK / 'tmp' / 'pytest'}",
        *(f"--deselect=tests/llm_engineering/{test}" for test in left_out),
    ]
    lines = []
    for section, values in (
        ("pytest.ini_options", settings["pytest"]["ini_options"]),
        ("mutmut", settings["mutmut"]),
    ):
        # JSON's strings, lists, numbers and truths are TOML's too.
        lines += [f"[tool.{section}]", *(f"{key} = {json.dumps(values[key])}" for key in values)]
    (WORK / "pyproject.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    # Else mutmut takes a copy, from when another module was tried, for what it made of the file; and what
    # it knows of that one's tests for a reason to try all of this one's mutants again.
    (WORK / "mutants" / "llm_engineering" / name).unlink(missing_ok=True)
    (WORK / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
    found = read_verdicts(name)
    if found:
        found["exit_code_by_key"] = {
            key: code if code in KILLED else None for key, code in found["exit_code_by_key"].items()
        }
        verdicts(name).write_text(json.dumps(found), encoding="utf-8")


KILLED = (1, 3)
"""Exit codes of pytest: a test failed, or pytest did. Whatever else is tried again by a second call; a
time-out may be an end that does not come, or others that compute."""


def verdicts(name: str) -> Path:
    """Mutmut's record of a module."""
    return WORK / "mutants" / "llm_engineering" / f"{name}.meta"


def read_verdicts(name: str) -> dict[str, Any]:
    """What is recorded of a module so far."""
    path = verdicts(name)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def mutmut(*arguments: str) -> int:
    """Run mutmut on the module that the settings name."""
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / '.mutmut'}:{ROOT / 'tests' / 'mutants'}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TMPDIR": str(WORK / "tmp"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(ROOT / "tests" / "mutants" / "run_mutmut.py"), *arguments]
    log = WORK / "mutmut.log"
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(
            command, cwd=WORK, env=environment, stdout=output, stderr=output, check=False
        ).returncode
    if code:
        print(log.read_text(encoding="utf-8")[-3000:])
    return code


def summary(name: str, seconds: float) -> str:
    """A line of the table."""
    codes = read_verdicts(name)["exit_code_by_key"]
    survivors = [key for key, code in codes.items() if code not in KILLED]
    killed = len(codes) - len(survivors)
    print(*(f"    {key}: {codes[key]}" for key in survivors), sep="\n")
    return (
        f"| `{name}` | {len(codes)} | {killed} ({killed / max(1, len(codes)):.1%}) "
        f"| {len(survivors)} | {seconds / 60:.1f} min |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
