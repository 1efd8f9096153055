"""Install what a host needs that only launches SageMaker jobs: boto3, and the SDK's table of images.

Into .venv, beside the project's main packages, in the lock's versions and checked against its digests.
Of the SDK (sagemaker-core) the files are put there without the packages that it imports: the launcher
reads its table of AWS's image accounts (llm_engineering/sagemaker/image.py), and never imports it.

    python tools/install_launcher.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / ".venv" / "bin" / "python"
# boto3 with what it needs beyond the main packages, and the SDK's files.
WANTED = re.compile(r"boto3|botocore|jmespath|s3transfer|sagemaker-core")
# Run under Poetry's interpreter, which has not got the project.
sys.path.insert(0, str(ROOT))


def launcher_requirements(lock: Mapping[str, Any]) -> list[str]:
    """A line of pip's, with the lock's digests, for each package of the launcher's own."""
    from llm_engineering.requirements import locked_requirements

    lines = locked_requirements(
        lock,
        groups=frozenset({"sagemaker"}),
        environment=None,
        leave_out=re.compile(rf"(?!({WANTED.pattern})$).*"),
        hashes=True,
    )
    return list(lines)


def main() -> None:
    """Install, or end with pip's last word."""
    lock = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text("\n".join(launcher_requirements(lock)) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--python", str(TARGET), "install", "--quiet"]
        command += ["--no-deps", "--require-hashes", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "--requirement", str(listed)],
            cwd=ROOT,
            check=False,
            stderr=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        sys.exit(f"the launcher's packages could not be installed: {(lines or ['?'])[-1]}")


if __name__ == "__main__":
    main()
