"""Install the locked training group into .venv: as locked beside an NVIDIA GPU, else for the CPU.

Poetry would bring torch's CUDA build to every host. On a host without a GPU this installs the same
versions with pip instead, checked against the lock's digests: torch's CPU build from PyTorch's own
index, and nothing that only a GPU uses. Where that build cannot be had, the CUDA build is installed,
with all that it needs; it works without a GPU too. poetry.lock stays the one list of versions.

    python tools/install_training.py            decides by the host
    TRAINING_BUILD=cuda python tools/...        or cpu: decides for it
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / ".venv" / "bin" / "python"
TORCH_CPU = ROOT / "tools" / "torch-cpu-requirements.txt"
# Run under Poetry's interpreter, which has not got the project, from wherever.
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from check_host import FETCHED, GB, chosen_build, missing  # noqa: E402


def training_requirements(lock: Mapping[str, Any]) -> list[str]:
    """A line of pip's for each package of the train group that a host without a GPU needs.

    ``name==version`` with the lock's digests. Not torch on Linux, whose CPU build is not in the
    lock: :data:`TORCH_CPU` has it.
    """
    from llm_engineering.requirements import GPU_ONLY, locked_requirements

    lines = locked_requirements(
        lock, groups=frozenset({"train"}), environment=None, leave_out=GPU_ONLY, hashes=True
    )
    if sys.platform != "linux":
        return lines
    return [line for line in lines if not line.startswith("torch==")]


def install_cpu() -> str | None:
    """Install for a host without a GPU; returns why that failed, None if it did not."""
    print("installing the training packages, CPU build of PyTorch", flush=True)
    if sys.platform == "linux":
        done = _pip("--requirement", str(TORCH_CPU), "--retries", "1", "--timeout", "20")
        if done.returncode:
            return _last_line(done.stderr)
    lock = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("\n".join(training_requirements(lock)) + "\n", encoding="utf-8")
        done = _pip("--requirement", str(listed))
    if done.returncode:
        sys.exit(f"the training packages could not be installed: {_last_line(done.stderr)}")
    return None


def install_cuda() -> None:
    """Install the training group as locked, CUDA and all."""
    size = f"{FETCHED['cuda'] / GB:.1f} GB to fetch"
    print(f"installing the training packages, CUDA build of PyTorch ({size})", flush=True)
    done = subprocess.run(["tools/poetry_install.sh", "--with", "train"], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def broken_import() -> str | None:
    """The last line of what importing torch and unsloth says, None where both can be imported."""
    done = subprocess.run(
        [str(TARGET), "-c", "import torch, unsloth"], capture_output=True, text=True, check=False
    )
    return _last_line(done.stderr) if done.returncode else None


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Install the packages of a requirements file as they are listed, and no others."""
    command = [sys.executable, "-m", "pip", "--python", str(TARGET), "install", "--quiet"]
    command += ["--no-deps", "--require-hashes", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)


def _last_line(text: str) -> str:
    lines = [line.removeprefix("ERROR: ") for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"


def main() -> None:
    """Install, look whether it can be imported, or say why not."""
    build = chosen_build()
    if build == "cpu":
        reason = install_cpu()
        if reason and os.environ.get("TRAINING_BUILD"):
            sys.exit(
                f"TRAINING_BUILD=cpu: PyTorch's CPU build could not be fetched from "
                f"download.pytorch.org ({reason}). Without TRAINING_BUILD the CUDA build is taken"
            )
        if reason:
            print(
                f"PyTorch's CPU build could not be fetched from download.pytorch.org ({reason}). Its "
                "CUDA build works without a GPU too, and is larger"
            )
            lacks = missing("cuda")
            if lacks:
                sys.exit(lacks)
            build = "cuda"
    if build == "cuda":
        install_cuda()
    problem = broken_import()
    if problem:
        sys.exit(
            f"set-up has installed torch and unsloth, and they cannot be imported: {problem}. Remove "
            ".venv and run `make setup` again; if it stays so, report that line"
        )


if __name__ == "__main__":
    main()
