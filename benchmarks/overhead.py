"""What ZenML, data checks, records and reports cost: the command against a plain script.

Runs both in turn, as whole processes, and prints one JSON line a run and one with the ratio.
On a noisy machine only the ratio means something, and more rounds mean more.

    .venv/bin/python benchmarks/overhead.py [ROUNDS]
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = process.stdout.read() if process.stdout else b""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(output.decode(errors="replace")[-4000:])
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def main() -> None:
    """Compare."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ZENML_CONFIG_PATH": f"{folder}/zenml"}
        # The store is made once in a machine's life, by `make setup`.
        timed([str(Path(sys.executable).with_name("zenml")), "stack", "list"], environment)
        commands = {
            "plain": [sys.executable, "benchmarks/plain_unsloth_trl.py", f"{folder}/plain"],
            "pipeline": [
                sys.executable, "tools/run.py", "--finetune", "--no-cache",
                "--set", f"run.output_dir={folder}/outputs",
            ],
        }  # fmt: skip
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds):
            order = list(commands) if number % 2 == 0 else list(reversed(commands))
            for name in order:
                taken, memory = timed(commands[name], environment)
                seconds[name].append(taken)
                print(
                    json.dumps(
                        {"run": name, "seconds": round(taken, 1), "peak_gb": round(memory / 1e9, 2)}
                    ),
                    flush=True,
                )
        metrics = json.loads(Path(f"{folder}/outputs/latest/metrics.json").read_text())
        plain, pipeline = (statistics.median(seconds[name]) for name in ("plain", "pipeline"))
        print(
            json.dumps(
                {
                    "overhead_seconds": round(pipeline - plain, 1),
                    "overhead_share": round(pipeline / plain - 1, 3),
                    "held_out_loss_change": round(metrics["held_out_loss_change"], 4),
                }
            )
        )


if __name__ == "__main__":
    main()
