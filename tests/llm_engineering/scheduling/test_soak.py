"""A soak: each fault once, then faults drawn at random, and nothing is lost (``tests/soak.py``).

    SOAK_TICKS=200 SOAK_SEED=1 pytest -n0 -s tests/llm_engineering/scheduling/test_soak.py

Ten calls without these settings; they are part of `make test-long`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_engineering.configuration import to_yaml

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[3]
TICKS = int(os.environ.get("SOAK_TICKS", "10"))
SEED = os.environ.get("SOAK_SEED", "3")
SECONDS = os.environ.get("SOAK_SECONDS", "1e9")
CHECKS = ["finite_losses", "intact_adapter", "not_rolled_back", "better_than_base"]


def test_whatever_happens_nothing_is_lost_and_production_can_be_loaded(make_config, tmp_path):
    config = make_config(
        {
            "train.max_steps": 12,
            "train.learning_rate": 0.003,
            "train.checkpoint_every": 2,
            "train.keep_checkpoints": 1,
            "evaluate.samples": 0,
            "evaluate.parity_rows": 0,
            "evaluate.generic_passages": 0,
            "registry.checks": CHECKS,
            "schedule.retries": 1,
            "schedule.retry_wait_seconds": 0,
            "schedule.alert_command": ["tee", "-a", str(tmp_path / "alerts.txt")],
            "schedule.retention": {"keep_runs": 5, "keep_days": 1, "keep_interrupted_days": 1},
        }
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config, schedule=True))
    command = [sys.executable, str(ROOT / "tests" / "soak.py"), str(tmp_path)]
    command += ["--ticks", str(TICKS), "--seed", SEED, "--seconds", SECONDS]
    environment = dict(os.environ)
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0:
        command = ["unshare", "--mount", *command]
        environment["SOAK_OWN_MOUNTS"] = "1"
    told = tmp_path / "calls.txt"
    with told.open("w") as out:  # a file, which can be read while it goes on
        done = subprocess.run(command, stdout=out, stderr=out, cwd=tmp_path, env=environment)
    text = told.read_text()
    log = tmp_path / "calls.log"
    said = log.read_text()[-4000:] if log.exists() else ""
    assert done.returncode == 0, f"{text[-6000:]}\n{said}"
    figures = json.loads(text[text.index("{\n") :])
    assert figures["problems"] == []
    assert figures["outcomes"]["succeeded"] >= 2
    assert {"failed", "interrupted"} <= set(figures["outcomes"])
    assert figures["resumed"] >= (1 if TICKS >= 50 else 0)
    assert figures["alerts"] >= 2
