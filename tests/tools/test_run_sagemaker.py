"""``--target sagemaker``, as a user types it, against the simulated service.

All of it on a host without the training stack (``WITHOUT``): the jobs have it, the launcher needs
none.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from families.shapes import FAMILIES, write_model
from transformers import AutoTokenizer

pytestmark = pytest.mark.slow

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "models" / "SmolLM2-135M-Instruct"
WITHOUT = {"PYTHONPATH": str(Path(__file__).with_name("without_pytorch"))}
STEPS = [
    *("look_at_inputs", "prepare_data", "load_model", "inject_lora"),
    *("train", "evaluate", "save_model", "promote"),
]


def command(*arguments):
    changes = WITHOUT if "sagemaker" in arguments else {}
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run.py"), "--finetune", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **changes},
    )


@pytest.fixture
def embedded(sagemaker_service, tmp_path):
    """The embedded default with few steps, and a job's settings; returns its file."""
    values = yaml.safe_load((ROOT / "configs" / "finetuning.yaml").read_text())
    values["model"]["dtype"] = "float32"
    values["data"]["held_out"]["max_rows"] = 16
    values["train"] |= {"max_steps": 4, "warmup_steps": 1, "checkpoint_every": 2}
    values["evaluate"] = {"samples": 1, "max_new_tokens": 8}
    values["registry"] = {"model": "trained-in-a-job"}  # its versions are compared with no other
    values["sagemaker"] = {
        "instance_types": ["ml.g5.2xlarge"],
        "role": sagemaker_service.role_arn,
        "region": "us-east-1",
        "bucket": sagemaker_service.bucket,
        "image": sagemaker_service.image,
        "image_python": f"3.{min(sys.version_info.minor, 12)}",  # no image has a newer one
        "max_run_seconds": 3600,
        "price_per_hour": {"ml.g5.2xlarge": 1.515},
        "tags": {"team": "ml"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """A tiny mixture of a family, with the embedded model's tokenizer."""

    def make(kind):
        family = FAMILIES[kind]
        tokens = {"vocab_size": len(AutoTokenizer.from_pretrained(EMBEDDED))}
        larger = dataclasses.replace(family, values=family.values | tokens)
        return write_model(larger, tmp_path_factory.mktemp(kind), EMBEDDED)

    return make


def test_a_mixture_is_told_from_its_files_or_refused_before_anything_is_sent(
    embedded, sagemaker_service, mixture
):
    config = ("--config", embedded, "--set", "lora.target_modules=auto", "--set")
    known = (*config, f"model.id={mixture('qwen3_moe')}")
    done = command("--target", "sagemaker", "--dry-run", *known)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "B active; " in done.stdout
    assert "ml.g5.2xlarge: micro-batch" in done.stdout

    unknown = (*config, f"model.id={mixture('granitemoe')}")
    done = command("--target", "sagemaker", *unknown)
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "how granitemoe keeps them is not known here" in said
    assert "run `make setup` on this host, and then the same command" in said
    assert "Traceback" not in said
    assert sagemaker_service.keys() == []


def test_dry_run_sends_nothing(embedded, sagemaker_service):
    sagemaker_service.set_faults(expired_until=4e9)  # any call at all would fail
    done = command(
        "--target", "sagemaker", "--dry-run", "--config", embedded,
        "--set", "sagemaker.environment.MODE=quick",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    text = done.stdout
    request = json.loads(text[text.index("{", text.index("# request")) : text.index("\n# source")])
    assert request["ResourceConfig"]["InstanceType"] == "ml.g5.2xlarge"
    assert request["StoppingCondition"]["MaxRuntimeInSeconds"] == 3600
    assert request["Environment"] == {"HF_HOME": "...", "MODE": "..."}
    assert [c["ChannelName"] for c in request["InputDataConfig"]] == [
        "config",
        "dataset",
        "code",
        *(["base_model"] if EMBEDDED.is_dir() else []),
    ]
    assert "llm_engineering/training/run.py" in text
    assert "# model.tar.gz for serving: LMI: the adapter trained-in-a-job, on " in text
    assert ".env" not in text
    assert "# cost ceiling: 1.51 USD" in text or "# cost ceiling: 1.52 USD" in text
    sagemaker_service.set_faults()
    assert sagemaker_service.keys() == []


def test_a_host_that_only_launches_is_one():
    """What the tests here rest on."""
    tried = "import importlib.util as u\nfor n in 'torch', 'unsloth', 'peft', 'trl':\n" + (
        " assert u.find_spec(n) is None, n\n try:\n  __import__(n)\n  raise SystemExit(n)\n"
        " except ModuleNotFoundError: pass\n"
    )
    subprocess.run([sys.executable, "-c", tried], check=True, env=os.environ | WITHOUT)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "run.py"), "--finetune"],
        env=os.environ | WITHOUT, capture_output=True, text=True,
    )  # fmt: skip
    assert "the training packages are not installed (torch, unsloth, peft" in done.stderr


def test_without_its_section_the_target_says_what_it_needs():
    done = command("--target", "sagemaker")
    assert done.returncode == 8
    assert "sagemaker: the configuration has no such section" in done.stderr


def test_an_unsound_account_stops_it_before_data_is_prepared(embedded, sagemaker_service):
    done = command(
        "--target", "sagemaker", "--config", embedded, "--set", "sagemaker.bucket=not-there"
    )
    assert done.returncode == 8
    assert done.stderr.strip() == (
        "error: sagemaker.bucket: there is no bucket not-there; make it in us-east-1"
    )


@pytest.mark.long
@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="`make model` has not been run")
def test_the_embedded_model_trains_in_a_job_to_the_bits_of_a_local_run(
    embedded, sagemaker_service, tmp_path
):
    remote, local = tmp_path / "remote", tmp_path / "local"
    short = ["--config", embedded, "--set", "train.max_steps=12"]
    done = command("--target", "sagemaker", *short, "--set", f"run.output_dir={remote}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "cost ceiling: 1.5" in done.stdout
    done = command(*short, "--set", f"run.output_dir={local}")
    assert done.returncode == 0, done.stderr[-3000:]

    def weights(outputs):
        return (outputs / "latest" / "adapter" / "adapter_model.safetensors").read_bytes()

    assert weights(remote) == weights(local)
    for outputs in (remote, local):
        assert {p.name for p in (outputs / "latest").iterdir()} == {
            "adapter",
            "metrics.json",
            "manifest.json",
            "promotion.json",
            "report.html",
        }
    names = {
        outputs: {p.name for p in (outputs / "latest" / "adapter").iterdir()}
        for outputs in (remote, local)
    }
    assert names[remote] == names[local]
    job = json.loads((remote / "latest" / "manifest.json").read_text())["job"]
    assert job["instance_type"] == "ml.g5.2xlarge"
    assert job["cost_usd"] == pytest.approx(1.515 * job["billable_seconds"] / 3600)
    assert job["arn"] in (remote / "latest" / "report.html").read_text()

    from zenml.client import Client

    runs = {
        outputs: Client().get_pipeline_run((outputs / "latest").resolve().name)
        for outputs in (remote, local)
    }
    assert list(runs[remote].steps) == list(runs[local].steps) == STEPS
    for step in STEPS:
        assert set(runs[remote].steps[step].outputs) == set(runs[local].steps[step].outputs)
    metadata = runs[remote].steps["train"].run_metadata["job"]
    assert metadata["job_arn"] == job["arn"]
    assert metadata["job_billable_seconds"] == job["billable_seconds"]
    tags = sagemaker_service.client("sagemaker").list_tags(ResourceArn=job["arn"])["Tags"]
    assert {"Key": "team", "Value": "ml"} in tags


@pytest.fixture
def tiny(sagemaker_service, make_config, tmp_path):
    """The tiny model for a job, under a name of the user's; returns its file."""
    from llm_engineering.configuration import to_yaml

    config = make_config(
        {
            "run.name": "mine",
            "evaluate.parity_rows": 0,
            "registry.promote": False,
            "sagemaker": {
                "instance_types": ["ml.g5.2xlarge"],
                "role": sagemaker_service.role_arn,
                "region": "us-east-1",
                "bucket": sagemaker_service.bucket,
                "image": sagemaker_service.image,
                "image_python": f"3.{min(sys.version_info.minor, 12)}",  # no image has a newer one
                "max_run_seconds": 3600,
                "price_per_hour": {"ml.g5.2xlarge": 1.5},
            },
        }
    )
    file = tmp_path / "my job.yaml"
    file.write_text(to_yaml(config))
    return file


@pytest.mark.long
def test_what_a_command_that_is_ended_prints_works_as_typed(tiny, sagemaker_service, tmp_path):
    """Its job goes on; the printed command follows it, although run.name is taken by then."""
    sagemaker_service.set_faults(pending_s=20)
    line = [sys.executable, str(ROOT / "tools" / "run.py"), "--finetune"]
    line += ["--target", "sagemaker", "--config", str(tiny)]
    host = os.environ | WITHOUT
    process = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=host
    )
    listed = sagemaker_service.client("sagemaker").list_training_jobs
    while not (jobs := listed()["TrainingJobSummaries"]):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    (job,) = jobs
    assert "goes on, and costs at most 1.50 USD" in " ".join(said.split())
    assert sagemaker_service.describe(job["TrainingJobName"])["TrainingJobStatus"] == "InProgress"
    follow = shlex.split(said.partition("follow it again:")[2].partition("stop it:")[0])
    assert follow[-2:] == ["--attach", job["TrainingJobName"]]
    done = subprocess.run(follow, cwd=tmp_path, capture_output=True, text=True, env=host)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert "note: run.name: ZenML has a run mine already" in done.stderr
    look = [*line[:2], "--config", str(tiny)]
    listed_here = subprocess.run([*look, "--jobs"], capture_output=True, text=True, env=host)
    row = next(each for each in listed_here.stdout.splitlines() if job["TrainingJobName"] in each)
    assert "completed" in row
    assert row.rstrip().endswith("yes"), listed_here.stdout + listed_here.stderr
    stopped = subprocess.run(
        [*look, "--stop", job["TrainingJobName"]], capture_output=True, text=True, env=host
    )
    assert "has ended already: completed; it has cost about" in stopped.stdout, stopped.stderr
    # In a store of its own: other tests' production versions came from jobs that nobody noted.
    cleaned = subprocess.run(
        [*look, "--clean", "--dry-run"], capture_output=True, text=True,
        env=host | {"ZENML_CONFIG_PATH": str(tmp_path / "store")},
    )  # fmt: skip
    assert "nothing that jobs of 30 days ago" in cleaned.stdout, cleaned.stderr
    assert (tmp_path / "outputs" / "mine-2" / "adapter" / "adapter_model.safetensors").is_file()
    assert len(listed()["TrainingJobSummaries"]) == 1
