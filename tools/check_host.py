"""What set-up and a first run need of this host, looked at before anything is fetched.

    python tools/check_host.py

prints one line for what is missing, and exits with 1; prints nothing where nothing is. Needs the
standard library alone.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

GB = 10**9
# CUDA: measured by tests/fresh_machine/run.sh (7.0 GB, 3.4 GB). CPU: this folder took 2.6 GB; what is
# fetched is estimated.
DISK = {"cpu": 3.0 * GB, "cuda": 7.0 * GB}
FETCHED = {"cpu": 0.8 * GB, "cuda": 3.5 * GB}
TEMPORARY = {"cpu": 0.5 * GB, "cuda": 1.0 * GB}
MEMORY = 4.0 * GB
"""Of disk: set-up and the embedded fine-tune's outputs; what pip keeps; one package unpacked."""


def has_nvidia_gpu() -> bool:
    """Whether the driver is there; asked of the host, since torch may not be installed yet."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def chosen_build() -> str:
    """The build of PyTorch that this host gets: "cuda" or "cpu"; $TRAINING_BUILD decides for it."""
    build = os.environ.get("TRAINING_BUILD") or ("cuda" if has_nvidia_gpu() else "cpu")
    if build not in ("cuda", "cpu"):
        sys.exit(f"TRAINING_BUILD: expected cuda or cpu, got {build!r}")
    return build


def missing(build: str) -> str | None:
    """What this host lacks for set-up with a build of PyTorch, in a line; None if nothing."""
    from llm_engineering.errors import SetupError
    from llm_engineering.lineage.store import can_write, require_store

    if not can_write(ROOT):
        return f"{ROOT} cannot be written: set-up needs a checkout of your own (git clone)"
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute() or not can_write(home):
        return (
            f"your home folder ({home}) cannot be written, and pip and ZenML keep files there: set "
            "HOME to a folder of yours"
        )
    try:
        note = require_store()
    except SetupError as problem:
        return str(problem)
    if note:
        print(f"note: {note}", file=sys.stderr)
    return _missing_disk(build, home)


def memory_note() -> str | None:
    """That this host's memory is too small for the embedded fine-tune, None if it is not."""
    from llm_engineering.planning.host_memory import total_host_bytes

    total = total_host_bytes()
    if total is None or total >= MEMORY:
        return None
    return (
        f"note: {total / GB:.1f} GB of memory; fine-tuning the embedded model is known to work from "
        f"{MEMORY / GB:.0f} GB on"
    )


def _missing_disk(build: str, home: Path) -> str | None:
    """Adds up what goes to one file system, since most hosts have only one."""
    from llm_engineering.lineage.store import existing

    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    asked = ((ROOT, DISK), (existing(cache), FETCHED), (Path(tempfile.gettempdir()), TEMPORARY))
    needs: dict[int, float] = {}
    for folder, size in asked:
        device = folder.stat().st_dev
        needs[device] = needs.get(device, 0) + size[build]
    for folder, _ in asked:
        need, free = needs[folder.stat().st_dev], shutil.disk_usage(folder).free
        if free < need:
            return (
                f"{folder} has {free / GB:.1f} GB of disk free, and set-up ({build} build of "
                f"PyTorch) needs {need / GB:.1f} GB there: free some"
                + ("" if folder == ROOT else ", or set TMPDIR or XDG_CACHE_HOME to another disk")
            )
    return None


def main() -> None:
    """Check for the build that this host gets."""
    problem = missing(chosen_build())
    if problem:
        print(problem)
        sys.exit(1)
    note = memory_note()
    if note:
        print(note, file=sys.stderr)


if __name__ == "__main__":
    main()
