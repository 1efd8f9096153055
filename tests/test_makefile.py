"""What make refuses before it does anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("script", [".venv/bin/zenml", ".poetry/bin/poetry"])
def test_a_folder_that_was_moved_is_told_to_be_set_up_anew(script, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    installed = tmp_path / script
    installed.parent.mkdir(parents=True)

    def make(target):
        return subprocess.run(
            ["make", "--dry-run", target], cwd=tmp_path, capture_output=True, text=True
        )

    installed.write_text("#!/elsewhere/.venv/bin/python\n")
    refused = make("finetune")
    assert refused.returncode
    assert f"this folder was moved or copied, and {script} still calls where it was" in (
        refused.stderr
    )
    assert "rm -rf" in make("clean").stdout, "what it advises works"
    installed.write_text(f"#!{tmp_path}/.venv/bin/python\n")
    assert "moved" not in make("clean").stderr + make("model").stderr
