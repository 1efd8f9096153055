"""A dry run works out what a launch sends, and opens no connection for it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
LONGEST_CPU_S = 30.0  # of the processor: 8 alone, and up to 20 where others use the same cores
# Every way to a socket is shut before anything of ours is imported, and to a pause, as before
# another try; torch and unsloth too where asked, as on a host that only launches.
SHUT = """
import socket, sys, time

def refuse(*arguments, **options):
    raise SystemExit(f"a dry run opened a connection, or waited: {arguments}")

class Shut(socket.socket):
    connect = connect_ex = sendto = refuse

socket.socket = Shut
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
time.sleep = refuse
for name in BLOCKED:
    sys.modules[name] = None
sys.argv = ["tools/run.py", *ARGUMENTS]
sys.path.insert(0, ROOT)
import runpy
runpy.run_path(ROOT + "/tools/run.py", run_name="__main__")
"""


@pytest.fixture
def dry_run(tmp_path, tiny_model, write_jsonl):
    """Runs ``--dry-run --target sagemaker`` in a process without a network; gives its answer."""

    def run(blocked=(), model=tiny_model, **sagemaker):
        rows = [{"instruction": f"What is {n}?", "response": f"It is {n}."} for n in range(20)]
        data = write_jsonl(tmp_path / "rows.jsonl", rows)
        config = {
            "model": {"id": str(model), "max_seq_length": 128},
            "data": {"sources": [{"source": str(data)}], "held_out": {"fraction": 0.2}},
            "sagemaker": {
                "instance_types": ["ml.g5.2xlarge"],
                "role": "arn:aws:iam::123456789012:role/FinetuningJobs",
                "bucket": "finetuning-jobs",
                "region": "eu-west-1",
                "price_per_hour": {"ml.g5.2xlarge": 1.5},
                **sagemaker,
            },
        }
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        arguments = ["--finetune", "--target", "sagemaker", "--dry-run", "--config", str(file)]
        program = f"BLOCKED={list(blocked)!r}; ARGUMENTS={arguments!r}; ROOT={str(ROOT)!r}\n{SHUT}"
        # No AWS_ variable: nothing may look for credentials, which are asked of the network last.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_"))}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment | {"HOME": str(tmp_path)},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return run


def request_in(text: str) -> dict:
    return json.loads(text[text.index("{", text.index("# request")) : text.index("\n# source")])


def test_it_opens_no_socket_and_takes_seconds(dry_run):
    done, seconds = dry_run()
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Error" not in done.stderr
    request = request_in(done.stdout)
    image = request["AlgorithmSpecification"]["TrainingImage"]
    assert image.endswith(".dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2.9.0-gpu-py312")
    assert request["ResourceConfig"]["InstanceType"] == "ml.g5.2xlarge"
    assert "# cost ceiling: 36.00 USD" in done.stdout
    assert seconds < LONGEST_CPU_S


def test_a_host_that_only_launches_needs_neither_torch_nor_unsloth(dry_run):
    done, _ = dry_run(blocked=("torch", "unsloth", "unsloth_zoo", "peft", "trl"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert request_in(done.stdout)["TrainingJobName"].startswith("finetuning-")


def test_the_hub_is_not_asked_either(dry_run):
    done, seconds = dry_run(model="owner/of-a-model")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "# memory: not planned" in done.stdout
    assert request_in(done.stdout)["TrainingJobName"].startswith("finetuning-of-a-model-")
    assert seconds < LONGEST_CPU_S


def test_what_is_certainly_wrong_is_said_without_a_network(dry_run):
    done, _ = dry_run(volume_gb=2000)
    assert done.returncode == 8
    assert "sagemaker.volume_gb: 2000, but ml.g5.2xlarge has a local store of 450 GB" in done.stderr
