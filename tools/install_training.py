"""Install the locked training group into .venv: as locked beside an NVIDIA GPU, else for the CPU.

Poetry would bring torch's CUDA build (3 GB) to every host. On a host without a GPU this installs
the same versions with pip instead: torch from wherever pip finds a CPU build first, and nothing
that only a GPU uses. poetry.lock stays the one list of versions.

    python tools/install_training.py            decides by the host
    TRAINING_BUILD=cuda python tools/...        or cpu: decides for it
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # runs under Poetry's interpreter, which has not got the project


def training_requirements(lock: Mapping[str, Any]) -> list[str]:
    """``name==version`` of each package of the train group that a host without a GPU needs."""
    from llm_engineering.requirements import GPU_ONLY, locked_requirements

    return locked_requirements(
        lock, groups=frozenset({"train"}), environment=None, leave_out=GPU_ONLY
    )


def has_nvidia_gpu() -> bool:
    """Whether the driver is there; asked of the host, since torch may not be installed yet."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def main() -> None:
    """Install, or say why not."""
    build = os.environ.get("TRAINING_BUILD") or ("cuda" if has_nvidia_gpu() else "cpu")
    if build not in ("cuda", "cpu"):
        sys.exit(f"TRAINING_BUILD: expected cuda or cpu, got {build!r}")
    print(f"installing the training packages, {build} build", flush=True)
    if build == "cuda":
        command = [
            str(ROOT / ".poetry" / "bin" / "poetry"),
            "install",
            "--with",
            "train",
            "--compile",
        ]
    else:
        lock = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))
        target = ROOT / ".venv" / "bin" / "python"
        command = [sys.executable, "-m", "pip", "--python", str(target), "install", "--quiet"]
        command += ["--no-deps", "--disable-pip-version-check", *training_requirements(lock)]
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
