"""The launcher against the simulated service: the tiny model really trains in its containers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from llm_engineering.data.prepare import prepare_data
from llm_engineering.errors import LaunchError, LoraError
from llm_engineering.export.gguf import CONVERTER, read_metadata
from llm_engineering.lineage.fingerprints import take_fingerprints
from llm_engineering.model import live
from llm_engineering.model.finetuning.described import (
    describe_launched_lora,
    describe_launched_model,
)
from llm_engineering.model.finetuning.inject import inject_lora
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.model.finetuning.trained_shape import trained_shape
from llm_engineering.sagemaker import start
from llm_engineering.sagemaker.aws import Aws
from llm_engineering.sagemaker.follow import (
    JobFailedError,
    JobRanTooLongError,
    JobStoppedError,
    JobWaitedTooLongError,
)
from llm_engineering.sagemaker.launch import train_in_job
from llm_engineering.sagemaker.launch_order import Launch
from llm_engineering.sagemaker.submission import requirements, served_name
from llm_engineering.training.production import ProductionAdapter
from llm_engineering.training.run import train

pytestmark = pytest.mark.slow

POLL = 0.2
EMBEDDED = Path(__file__).resolve().parents[3] / "models" / "SmolLM2-135M-Instruct"
# Without the proof of the exports, which is a process of its own in every job.
QUICK = {"evaluate.parity_rows": 0, "registry.promote": False}


@dataclass
class Planned:
    """A launch that is ready to be submitted."""

    launch: Launch
    lora: object
    dataset: object
    folder: Path
    told: list

    def go(self, production=None, **changes):
        launch = self.launch.model_copy(update=changes)
        return train_in_job(
            launch,
            self.lora,
            self.dataset,
            run="run-1",
            folder=self.folder,
            on_submitted=self.told.append,
            production=production,
        )


@pytest.fixture
def plan(sagemaker_service, make_config, tmp_path):
    """Plan a launch of the tiny model; ``plan({"train.max_steps": 6}, volume_gb=50)``."""

    def make(changes=None, **settings):
        config = make_config(
            {
                **QUICK,
                **(changes or {}),
                "sagemaker": {
                    "instance_types": ["ml.g5.2xlarge", "ml.g6.2xlarge"],
                    "role": sagemaker_service.role_arn,
                    "region": "us-east-1",
                    "bucket": sagemaker_service.bucket,
                    "image": sagemaker_service.image,
                    "image_python": "3.11",
                    "max_run_seconds": 600,
                    "price_per_hour": {"ml.g5.2xlarge": 1.5, "ml.g6.2xlarge": 1.2},
                    **settings,
                },
            }
        )
        dataset = prepare_data(config.data, config.model, folder=tmp_path / "data")
        lora = describe_launched_lora(
            describe_launched_model(config.model, dtype="float32"), config.lora
        )
        code = take_fingerprints(config).code
        launch = Launch(config=config, code=code, poll_seconds=POLL, capacity_pause_seconds=0.1)
        return Planned(launch, lora, dataset, tmp_path / "results", [])

    return make


def local_digest(planned, folder):
    """The adapter that a local run makes of the same configuration and data."""
    config = planned.launch.config
    live.release()
    lora = inject_lora(load_model(config.model), config.lora)
    assert lora == planned.lora, "what was described is not what a run injects"
    adapter, record = train(
        lora,
        planned.dataset,
        config.train,
        config.evaluate,
        seed=config.run.seed,
        work=folder,
        name="local",
    )
    return adapter.digest, record


def jobs(service):
    return service.client("sagemaker").list_training_jobs()["TrainingJobSummaries"]


def test_a_job_brings_back_the_adapter_that_a_local_run_makes(
    plan, sagemaker_service, tmp_path, caplog, monkeypatch
):
    sagemaker_service.use_shipped_policies(["MakeTheModelGroup", "RegisterModels", "LogToMlflow"])
    planned = plan(
        {"evaluate.parity_rows": 2, "train.trackers": ["mlflow"]},
        model_package={"group": "finetuned", "image": sagemaker_service.image},
        mlflow="arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/team",
        environment={"SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": sagemaker_service.endpoint},
    )
    with caplog.at_level("INFO"):
        adapter, record = planned.go()
    shown = caplog.text  # the log as it came
    assert "Starting training script" in shown
    assert shown.index("] Training") < shown.index("evaluating 12 held-out rows")
    # Where the local run logs; MLflow's default is a file in the folder of this process.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    digest, local = local_digest(planned, tmp_path / "local")
    assert adapter.digest == digest
    assert [p.loss for p in record.points] == [p.loss for p in local.points]
    assert record.before == local.before
    assert record.after == local.after
    assert {p.name for p in adapter.folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    # told before waiting: ARN and link
    (told,) = planned.told
    assert told.arn.endswith(f":training-job/{told.name}")
    assert told.console.endswith(f"#/jobs/{told.name}")
    # what it cost
    job = record.job
    assert (job.name, job.instance_type, job.restarts) == (told.name, "ml.g5.2xlarge", 0)
    repository = sagemaker_service.image.partition(":")[0]
    assert job.image.startswith(f"{repository}@sha256:")  # what its tag stands for
    assert job.cost_usd == pytest.approx(1.5 * job.billable_seconds / 3600)
    assert len(record.evaluation.samples) == 2
    assert [proof.export for proof in job.parity] == ["adapter"]
    # held against the job's log, laid out for a serving container, registered
    assert job.is_anchored
    assert "checked for damage" not in shown
    assert job.model_artifact == f"s3://{sagemaker_service.bucket}/" + next(
        key for key in sagemaker_service.keys() if key.endswith("model.tar.gz")
    )
    name = served_name(planned.launch.config)
    base = f"s3://{sagemaker_service.bucket}/llm-engineering-finetuning/models/"
    assert job.serving.startswith(f"LMI: the adapter {name}, on {base}")
    with tarfile.open(planned.folder / "model.tar.gz") as packed:
        names = {each.name.removeprefix("./") for each in packed.getmembers()}
    assert {"serving.properties", f"adapters/{name}/adapter_model.safetensors"} <= names
    package = sagemaker_service.client("sagemaker").describe_model_package(
        ModelPackageName=job.model_package
    )
    (container,) = package["InferenceSpecification"]["Containers"]
    assert container["ModelDataUrl"] == job.model_artifact
    # the managed MLflow server has the curve
    (run,) = sagemaker_service.mlflow_runs()
    logged = [each["value"] for each in run["data"]["metrics"] if each["key"] == "loss"]
    assert logged == pytest.approx([p.loss for p in record.points], abs=1e-3)
    assert {"key": "job", "value": told.name} in run["data"]["tags"]
    # only results are in the model folder
    archive = planned.folder / "job"
    assert {p.name for p in archive.iterdir()} == {
        "adapter",
        "metrics.json",
        "manifest.json",
        "report.html",
        "records",
        "inventory.json",
    }
    request = sagemaker_service.describe(told.name)
    assert not request.get("HyperParameters"), "everything travels in one configuration file"
    tags = sagemaker_service.client("sagemaker").list_tags(ResourceArn=told.arn)["Tags"]
    assert {"pipeline": "finetuning", "run": "run-1"}.items() <= {
        t["Key"]: t["Value"] for t in tags
    }.items()

    # The same training again: the job that has completed is fetched, none is paid for.
    again, fetched = planned.go()
    assert again.digest == adapter.digest
    assert fetched.job.model_package == job.model_package
    assert planned.told[-1].reattached
    assert planned.told[-1].name == told.name
    assert len(jobs(sagemaker_service)) == 1

    # --attach by name; another training's name is refused
    planned.go(attach=told.name)
    other = plan({"evaluate.parity_rows": 2, "train.learning_rate": 0.002})
    with pytest.raises(LaunchError, match=f"--attach {told.name}: that job trains something else"):
        other.go(attach=told.name)

    # On demand, equal or not, it is trained again, from the start; and the production version,
    # here this very adapter, is measured on the same rows.
    assert record.production is None
    production = ProductionAdapter("run-0", adapter)
    fresh, record = planned.go(production, fresh=True)
    assert record.production.version == "run-0"
    assert record.production.metrics == record.after
    assert fresh.digest == adapter.digest
    assert record.resumed_from_step is None
    assert len(jobs(sagemaker_service)) == 2


@pytest.mark.long
def test_two_instances_learn_together_what_one_process_learns(plan, sagemaker_service, tmp_path):
    """Two containers' ranks over gloo; the first instance alone leaves results."""
    changes = {
        "train.micro_batch": 1, "train.gradient_accumulation": 2, "train.max_steps": 3,
        "evaluate.generic_passages": 0,
    }  # fmt: skip
    planned = plan(changes, instance_count=2)
    _, record = planned.go()
    _, local = local_digest(planned, tmp_path / "local")
    assert [p.loss for p in record.points] == pytest.approx(
        [p.loss for p in local.points], rel=1e-4
    )
    assert record.ranks == 2
    assert record.after.loss == pytest.approx(local.after.loss, rel=1e-4)
    assert len(record.evaluation.samples) == 2
    job = record.job
    assert job.cost_usd == pytest.approx(2 * 1.5 * job.billable_seconds / 3600)
    request = sagemaker_service.describe(job.name)
    assert request["ResourceConfig"]["InstanceCount"] == 2
    assert len(sagemaker_service.log_lines(job.name)) == 2


@pytest.mark.parametrize("notice_s", [pytest.param(5.0, marks=pytest.mark.long), 0.0])
def test_spot_interruption_goes_on_from_the_checkpoint(
    plan, sagemaker_service, tmp_path, caplog, notice_s
):
    """With SIGTERM first, or by SIGKILL alone: then the newest complete checkpoint counts."""
    caplog.set_level("INFO")
    sagemaker_service.set_faults(spot_grace_s=notice_s, checkpoint_sync_s=0.1)
    changes = {"train.max_steps": 300, "train.checkpoint_every": 20}
    planned = plan(changes, spot={"enabled": True, "max_wait_seconds": 900})
    name = []
    result = []

    def run():
        result.append(planned.go())

    thread = threading.Thread(target=run)
    thread.start()
    while not planned.told:
        assert thread.is_alive()
        thread.join(0.1)
    name = planned.told[0].name
    while not any("/checkpoint-" in key for key in sagemaker_service.keys()):
        assert thread.is_alive(), "the job ended before it was interrupted"
        thread.join(0.1)
    sagemaker_service.interrupt(name)
    thread.join(900)
    ((adapter, record),) = result
    assert record.job.restarts == 1
    assert record.job.spot
    assert record.resumed_from_step >= 20
    assert [p.step for p in record.points] == list(range(1, 301))
    digest, _ = local_digest(planned, tmp_path / "local")
    assert adapter.digest == digest
    streams = sagemaker_service.log_lines(name)
    assert len(streams) == 2
    lines = [line for stream in streams.values() for line in stream]
    assert any("SIGTERM: saving a checkpoint" in line for line in lines) == (notice_s > 0)
    # what was shown here comes from both streams
    assert caplog.text.count("Starting training script") >= 2
    assert f"resuming job from step {record.resumed_from_step}" in caplog.text


def test_two_launches_at_once_pay_for_one_job(plan, sagemaker_service):
    first = plan()
    second = Planned(first.launch, first.lora, first.dataset, first.folder / "2", [])
    results = []
    threads = [
        threading.Thread(target=lambda each=each: results.append(each.go()))
        for each in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert len(results) == 2
    assert results[0][0].digest == results[1][0].digest
    assert len(jobs(sagemaker_service)) == 1
    assert sorted(told.reattached for told in (*first.told, *second.told)) == [False, True]


def test_a_failing_job_tells_its_own_error_first(plan, sagemaker_service, monkeypatch):
    planned = plan()
    config = planned.launch.config
    lora = config.lora.model_copy(update={"target_modules": ["query"]})
    config = config.model_copy(update={"lora": lora})
    said = "lora.target_modules: query matches no linear module of this model; it has q_proj (2)"
    with pytest.raises(LoraError, match=re.escape(said)):
        planned.go(config=config)
    assert jobs(sagemaker_service) == [], "a launcher with PyTorch sees it before money"

    monkeypatch.setattr("llm_engineering.model.finetuning.trained_shape.has_pytorch", lambda: False)
    with pytest.raises(JobFailedError) as error:
        planned.go(config=config)
    assert said in str(error.value)
    assert "The end of its log:" in str(error.value)
    reason = sagemaker_service.describe(planned.told[0].name)["FailureReason"]
    assert reason.removeprefix("AlgorithmError: ").startswith(said)
    assert "raise LoraError(" in reason, "as much of the end of the traceback as fits"


def test_no_capacity_goes_down_the_list_of_types(plan, sagemaker_service):
    sagemaker_service.set_faults(no_capacity=["ml.g5.2xlarge"])
    _, record = plan().go()
    assert record.job.instance_type == "ml.g6.2xlarge"
    assert record.job.cost_usd == pytest.approx(1.2 * record.job.billable_seconds / 3600)


def test_no_capacity_at_all_ends_after_bounded_tries(plan, sagemaker_service):
    sagemaker_service.set_faults(no_capacity=["ml.g5.2xlarge", "ml.g6.2xlarge"])
    with pytest.raises(LaunchError, match=r"no capacity for any of ml\.g5\.2xlarge, ml\.g6"):
        plan(capacity_retries=1).go()
    assert len(jobs(sagemaker_service)) == 2, "on demand the service itself goes down the list"


def test_a_resource_limit_is_not_tried_again(plan, sagemaker_service):
    zero = {f"ml.{each}.2xlarge for training job usage": 0 for each in ("g5", "g6")}
    # Whoever may not read quotas learns of them from the refusal.
    sagemaker_service.set_faults(quotas=zero, denied=["servicequotas:ListAWSDefaultServiceQuotas"])
    with pytest.raises(LaunchError, match="Raise that quota in Service Quotas"):
        plan().go()
    assert jobs(sagemaker_service) == []


@pytest.mark.long
def test_a_type_without_quota_is_not_asked_for(plan, sagemaker_service):
    sagemaker_service.set_faults(quotas={"ml.g5.2xlarge for training job usage": 0})
    planned = plan()
    planned.go()
    (job,) = jobs(sagemaker_service)
    resources = sagemaker_service.describe(job["TrainingJobName"])["ResourceConfig"]
    assert resources["InstanceType"] == "ml.g6.2xlarge"
    assert "InstancePreferences" not in resources


def test_the_service_stops_a_job_that_is_pending_too_long(plan, sagemaker_service):
    sagemaker_service.set_faults(pending_s=60, max_pending_s=1.0)
    planned = plan(pending_timeout_seconds=7200)
    with pytest.raises(JobWaitedTooLongError, match="got no capacity within 7200 s"):
        planned.go()
    job = sagemaker_service.describe(planned.told[0].name)
    assert job["TrainingJobStatus"] == "Stopped"
    assert "TrainingStartTime" not in job


def test_max_runtime_is_an_error_of_its_own(plan, sagemaker_service):
    sagemaker_service.set_faults(max_runtime_s=0.5)
    with pytest.raises(
        JobRanTooLongError, match=r"stopped after sagemaker\.max_run_seconds \(600\)"
    ):
        plan({"train.max_steps": 5000}).go()


def test_max_wait_is_an_error_of_its_own(plan, sagemaker_service):
    sagemaker_service.set_faults(no_capacity=["ml.g5.2xlarge"], max_wait_s=1.0)
    planned = plan(spot={"enabled": True, "max_wait_seconds": 900})
    with pytest.raises(JobWaitedTooLongError, match=r"sagemaker\.spot\.max_wait_seconds \(900\)"):
        planned.go()


def test_stopped_is_not_success(plan, sagemaker_service):
    planned = plan({"train.max_steps": 5000, "train.checkpoint_every": 20})
    error = []

    def run():
        try:
            planned.go()
        except LaunchError as caught:
            error.append(caught)

    thread = threading.Thread(target=run)
    thread.start()
    while not planned.told:
        thread.join(0.1)
    sagemaker_service.wait(planned.told[0].name, "Training")
    sagemaker_service.client("sagemaker").stop_training_job(TrainingJobName=planned.told[0].name)
    thread.join(120)
    assert isinstance(error[0], JobStoppedError)
    assert "its checkpoints are kept" in str(error[0])


def test_throttling_and_expired_credentials_are_survived(plan, sagemaker_service, caplog):
    import time

    sagemaker_service.set_faults(
        throttle={"sagemaker:DescribeTrainingJob": 3, "logs:GetLogEvents": 2}
    )
    planned = plan()
    result = []
    thread = threading.Thread(target=lambda: result.append(planned.go()))
    with caplog.at_level("INFO"):
        thread.start()
        while not planned.told:
            assert thread.is_alive()
            thread.join(0.05)
        sagemaker_service.set_faults(
            throttle={"sagemaker:DescribeTrainingJob": 3}, expired_until=time.time() + 2
        )
        thread.join(240)
    assert len(result) == 1
    assert "credentials have expired: renew them" in caplog.text


@pytest.mark.parametrize("detach", [False, True])
def test_ctrl_c_stops_the_job_unless_detached(plan, sagemaker_service, monkeypatch, caplog, detach):
    planned = plan({"train.max_steps": 5000})
    from llm_engineering.sagemaker import follow as following

    real, calls = following.time.sleep, []

    def interrupted(seconds):
        calls.append(seconds)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(seconds)

    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        patch.setattr(following.time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            planned.go(detach=detach)
    name = planned.told[0].name
    assert f"--attach {name}" in caplog.text
    if detach:
        assert f"--stop {name}" in caplog.text
        assert jobs(sagemaker_service)[0]["TrainingJobStatus"] == "InProgress"
        Aws(planned.launch.settings).client("sagemaker").stop_training_job(TrainingJobName=name)
    assert sagemaker_service.wait(name)["TrainingJobStatus"] == "Stopped"


@pytest.mark.long
def test_secrets_are_read_in_the_job_and_only_their_name_travels(plan, sagemaker_service):
    sagemaker_service.client("secretsmanager").create_secret(
        Name="hub-token", SecretString="a-value-of-no-known-shape"
    )
    planned = plan(secrets={"MY_HUB_VALUE": "hub-token"})
    planned.go()
    request = json.dumps(sagemaker_service.describe(planned.told[0].name), default=str)
    logs = json.dumps(sagemaker_service.log_lines(planned.told[0].name))
    assert "a-value-of-no-known-shape" not in request + logs
    sent = (
        sagemaker_service.client("s3")
        .get_object(
            Bucket=sagemaker_service.bucket,
            Key=next(k for k in sagemaker_service.keys() if k.endswith("/job.json")),
        )["Body"]
        .read()
    )
    assert json.loads(sent)["secrets"] == {"MY_HUB_VALUE": "hub-token"}


def test_a_secret_that_the_job_may_not_read_is_named(plan, sagemaker_service):
    planned = plan(secrets={"MY_HUB_VALUE": "not-there"})
    with pytest.raises(JobFailedError, match=r"sagemaker\.secrets\.MY_HUB_VALUE: the job cannot"):
        planned.go()


def test_a_gpu_that_is_too_small_is_refused_before_anything_is_sent(
    plan, sagemaker_service, monkeypatch
):
    planned = plan()
    config = planned.launch.config
    shape = trained_shape(config.model, config.lora)
    larger = shape.model_copy(
        update={"model": shape.model.model_copy(update={"parameters": 70_000_000_000})}
    )
    monkeypatch.setattr("llm_engineering.sagemaker.submission.known_shape", lambda *_: larger)
    with pytest.raises(LaunchError, match=r"ml\.g5\.2xlarge: this training does not fit A10G"):
        planned.go()
    assert jobs(sagemaker_service) == []
    assert sagemaker_service.keys() == []


@pytest.fixture
def model_in_s3(sagemaker_service, tiny_model):
    """The tiny model's files in S3, as somebody else has put them there; returns the folder."""

    def put(**changed):
        for path in tiny_model.iterdir():
            sagemaker_service.client("s3").put_object(
                Bucket=sagemaker_service.bucket,
                Key=f"llm-engineering-finetuning/own/tiny/{path.name}",
                Body=changed.get(path.suffix[1:], path.read_bytes()),
            )
        return f"s3://{sagemaker_service.bucket}/llm-engineering-finetuning/own/tiny"

    return put


@pytest.fixture
def wheels_in_s3(sagemaker_service, tmp_path):
    """A wheelhouse of what this test's "image" lacks of the lock; returns the folder."""
    image = start.installed()
    lines = requirements(SimpleNamespace(image_python="3.11", mlflow=None)).splitlines()
    missing = [
        line
        for line in lines
        if "==" in line and image.get(line.split("==")[0]) != line.split(" ")[0].split("==")[1]
    ]
    (tmp_path / "missing.txt").write_text("\n".join(missing))
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "README").write_text("wheels for the job")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--dest", str(wheels), "--requirement", str(tmp_path / "missing.txt")]
    if missing:
        subprocess.run(command, check=True)
    for path in wheels.iterdir():
        sagemaker_service.client("s3").upload_file(
            str(path),
            sagemaker_service.bucket,
            f"llm-engineering-finetuning/own/wheels/{path.name}",
        )
    return f"s3://{sagemaker_service.bucket}/llm-engineering-finetuning/own/wheels"


@pytest.mark.long
def test_an_isolated_job_trains_a_base_model_of_s3(
    plan, sagemaker_service, model_in_s3, wheels_in_s3, tmp_path
):
    """Without any network: packages of a wheelhouse, weights as a stream."""
    planned = plan(
        base_model=model_in_s3(),
        base_model_mode="FastFile",
        network_isolation=True,
        packages={"wheelhouse": wheels_in_s3},
    )
    adapter, _ = planned.go()
    digest, _ = local_digest(planned, tmp_path / "local")
    assert adapter.digest == digest
    assert not [key for key in sagemaker_service.keys() if "/models/" in key]  # nothing was sent
    (lines,) = sagemaker_service.log_lines(planned.told[0].name).values()
    assert any("packages of the lock from sagemaker.packages.wheelhouse" in line for line in lines)


@pytest.mark.long
def test_a_base_model_of_s3_with_other_weights_is_not_trained(
    plan, sagemaker_service, model_in_s3, tiny_model
):
    weights = bytearray((tiny_model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    planned = plan(base_model=model_in_s3(safetensors=bytes(weights)))
    with pytest.raises(JobFailedError, match=r"model\.safetensors of the base model are not those"):
        planned.go()


@pytest.mark.skipif(not CONVERTER.is_file(), reason="`make gguf-converter` has not been run")
@pytest.mark.skipif(not EMBEDDED.is_dir(), reason="`make model` has not been run")
def test_a_job_converts_to_gguf_with_the_converter_that_travels(plan, sagemaker_service):
    planned = plan(
        {
            "model.id": str(EMBEDDED),
            "train.max_steps": 2,
            "train.checkpoint_every": None,
            "evaluate.samples": 0,
            "evaluate.generic_passages": 0,
            "export.merged_16bit": True,
            "export.gguf": "f16",
        }
    )
    planned.go()
    (file,) = (planned.folder / "job" / "gguf").glob("*.gguf")
    template, _, _ = read_metadata(file)
    assert template == (EMBEDDED / "chat_template.jinja").read_text()
