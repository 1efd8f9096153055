"""Fetch llama.cpp's own converter to GGUF from the package registry, for `export.gguf`.

The source package of llama-cpp-python carries llama.cpp (MIT licence); of its 77 MB the converter,
a megabyte of Python, is kept. Nothing is built.

    python tools/get_gguf_converter.py [FOLDER]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
INSIDE = "llama_cpp_python-0.3.36/vendor/llama.cpp/"
KEPT = ("LICENSE", "convert_hf_to_gguf.py", "conversion/", "gguf-py/gguf/")


def fetch(folder: Path) -> Path:
    """Download the source package and check its digest."""
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
    # pip of whoever runs this; its index is the user's own.
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        + ["--disable-pip-version-check", "--no-binary", "llama-cpp-python"]
        + ["--dest", str(folder), "--requirement", str(requirement)],
        check=True,
    )
    return next(folder.glob("*.tar.gz"))


def unpack(package: Path, folder: Path) -> None:
    """Unpack the converter, all of it or nothing."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with tarfile.open(package) as archive:
        for member in archive:
            inner = member.name.removeprefix(INSIDE)
            if member.isfile() and inner != member.name and inner.startswith(KEPT):
                member.name = inner
                archive.extract(member, part, filter="data")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def main() -> None:
    """Fetch and unpack."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".gguf-converter"
    with tempfile.TemporaryDirectory() as temporary:
        unpack(fetch(Path(temporary)), folder)
    print(f"{folder}: {PACKAGE}'s copy of llama.cpp's converter")


if __name__ == "__main__":
    main()
