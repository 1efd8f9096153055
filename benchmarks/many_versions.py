"""Seconds, and seconds of CPU, that --models, --promote and --rollback take in a local store with many versions.

    python benchmarks/many_versions.py --versions 500

The versions are made in a store of their own, in a temporary folder, with the figures that a run
leaves; the commands are the real ones, each a process of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MODEL = "many-versions"


def add_versions(count: int) -> None:
    """Register versions as the save step does, without what they are made of."""
    from zenml import log_metadata
    from zenml.client import Client

    from llm_engineering.registry.versions import ADAPTER_DIGEST, TAG

    client = Client()
    client.create_model(MODEL, tags=[TAG])
    for number in range(1, count + 1):
        version = client.create_model_version(MODEL, f"run-{number:05d}")
        figures = {
            ADAPTER_DIGEST: f"{number:064x}",
            "held_out_digest": "a1b2c3d4",
            "held_out_rows": 64,
            "base_model": "models/SmolLM2-135M-Instruct",
            "output_folder": f"/outputs/run-{number:05d}",
            **{f"figure_{each}": number / (each + 1) for each in range(20)},
            "held_out_loss_before": 3.642,
            "held_out_loss_after": 2.9 - number / 10_000,
        }
        log_metadata(metadata=figures, model_version_id=version.id)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Fill a store and time the commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", type=int, default=500)
    count = parser.parse_args().versions
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"ZENML_CONFIG_PATH": folder, "ZENML_ANALYTICS_OPT_IN": "false"}
        started = time.monotonic()
        add_versions(count)
        print(f"{count} versions made in {time.monotonic() - started:.0f} s", flush=True)
        own = ["--set", f"registry.model={MODEL}"]
        for arguments in (
            ["--models"],
            ["--promote", "1", *own],
            ["--promote", str(count), *own],
            ["--rollback", *own],
            ["--models"],
        ):
            started, before = time.monotonic(), _cpu_seconds()
            command = [sys.executable, str(ROOT / "tools" / "run.py"), *arguments]
            done = subprocess.run(command, capture_output=True, text=True)
            seconds, cpu = time.monotonic() - started, _cpu_seconds() - before
            said = f"{seconds:6.2f} s  {cpu:6.2f} s of CPU  rc {done.returncode}  "
            print(said + " ".join(arguments), flush=True)
            if done.returncode:
                print(done.stderr)


if __name__ == "__main__":
    main()
