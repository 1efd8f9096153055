"""A run of a second user on a team's server, which is killed while it trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from zenml_server import ZenMLServer

from llm_engineering.configuration import to_yaml

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
USER, PASSWORD = "ada", "the-second-users-own"
OUTAGE_S = 45.0  # ZenML's client gives up after some 30

LOOK = """
import json, sys
from zenml.client import Client
run = Client().get_pipeline_run(sys.argv[1])
version = next(iter(Client().list_model_versions(stage="production", hydrate=True)))
steps = {name: step.status.value for name, step in run.steps.items()}
train = run.steps["train"].run_metadata
print(json.dumps({
    "user": run.user.name, "status": run.status.value, "steps": steps,
    "production": version.name, "training": train["training"], "peak": train["peak_memory"],
    "figures": sorted(version.run_metadata), "artifacts": sorted(version.data_artifact_ids),
    "outputs": {name: sorted(step.outputs) for name, step in run.steps.items()},
    "curve": len(run.steps["train"].outputs["loss_curve"][0].load()),
}))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ZenMLServer]:
    server = ZenMLServer(tmp_path / "server")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def command(tmp_path: Path, server: ZenMLServer) -> Callable[..., subprocess.Popen[str]]:
    """Start Python on a computer of the user's own, which knows the server by its environment."""

    def start(*arguments: str, **account: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ZENML_")}
        told = {f"ZENML_STORE_{name.upper()}": value for name, value in account.items()}
        own = {
            "ZENML_CONFIG_PATH": str(tmp_path / "own-settings"),
            "ZENML_ANALYTICS_OPT_IN": "false",
            "ZENML_STORE_URL": server.url,
            "ZENML_CUSTOM_SOURCE_ROOT": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, *arguments],
            env=kept | own | told,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start


def said(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output[-6000:]
    return output


def test_a_server_that_dies_while_training_costs_nothing(
    make_config: Any, server: ZenMLServer, command: Any, tmp_path: Path
) -> None:
    server.add_user(USER, PASSWORD)
    key = server.add_service_account("nightly")
    account = {"username": USER, "password": PASSWORD}
    config = make_config(
        {
            "run.name": "team",
            "registry.model": "team",
            "train.max_steps": 120,
            "train.learning_rate": 0.003,
            "evaluate.parity_rows": 0,
            "registry.checks": ["finite_losses", "intact_adapter"],
        }
    )
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    run = command("tools/run.py", "--finetune", "--config", str(path), **account)
    try:
        work = Path(config.run.output_dir) / ".work" / "team"
        while not any(work.glob("checkpoints/*/complete.json")):
            assert run.poll() is None, run.communicate()[0][-6000:]
            time.sleep(0.05)
        server.kill()
        time.sleep(OUTAGE_S)
        assert run.poll() is None, run.communicate()[0][-6000:]
        server.start()
        output = said(run)
    finally:
        run.kill()
    print(output)
    assert "does not take this step's figures" in output or "ZenML does not answer" in output
    assert "production     promoted" in output
    assert output.count("\n") < 200, "an outage is told, and not once a request"

    seen = json.loads(said(command("-c", LOOK, "team", **account)).splitlines()[-1])
    assert seen["user"] == USER
    assert seen["status"] == "completed"
    assert set(seen["steps"].values()) == {"completed"}
    assert seen["production"] == "team"
    assert seen["training"]["train_steps"] == 120
    metrics = json.loads((Path(config.run.output_dir) / "team" / "metrics.json").read_text())
    assert seen["training"]["held_out_loss_after"] == pytest.approx(
        metrics["held_out_loss_after"], rel=1e-4
    )
    assert seen["peak"] == metrics["peak_memory_bytes"]

    # A service account, as a schedule has it
    models = said(command("tools/run.py", "--models", api_key=key))
    assert "team" in models
    print(seen)
