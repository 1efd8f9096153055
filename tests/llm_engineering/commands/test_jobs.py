"""--jobs, --stop and --clean as they print."""

from __future__ import annotations

import shlex
from datetime import timedelta

import pytest
import yaml

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from sagemaker_service.memory import MemoryAws, MemoryService

from llm_engineering.commands import jobs as command
from llm_engineering.errors import ConfigError, RegistryError
from llm_engineering.sagemaker import aws as session

JOB = "finetuning-sft-0123456789ab"


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "my job.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "model": {"id": "owner/name"},
                "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
                "sagemaker": {
                    "instance_types": ["ml.g5.2xlarge"],
                    "role": "arn:aws:iam::123456789012:role/x",
                    "bucket": "bucket",
                    "prefix": "ft",
                    "region": "us-east-1",
                    "price_per_hour": {"ml.g5.2xlarge": 1.5},
                },
            }
        )
    )
    return file


@pytest.fixture
def service(monkeypatch):
    service = MemoryService()
    monkeypatch.setattr(session, "Aws", lambda settings: MemoryAws(settings, service))
    monkeypatch.setattr(command, "_configuration", lambda config, settings: "mine")
    monkeypatch.setattr(command, "set_up_terminal", lambda: None)
    return service


def add(service, name, configuration="mine", days_ago=0):
    now = service.now
    service.now -= timedelta(days=days_ago)
    service.create_training_job(
        TrainingJobName=name,
        ResourceConfig={"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1},
        OutputDataConfig={"S3OutputPath": "s3://bucket/ft/results"},
        Tags=[
            {"Key": "run", "Value": f"run-of-{name}"},
            {"Key": "configuration", "Value": configuration},
        ],
    )
    service.now = now
    service.put(f"ft/results/{name}/output/model.tar.gz", days_ago=days_ago)


def test_the_list_says_which_is_this_configurations_and_how_to_go_on(service, config, capsys):
    add(service, "finetuning-other", "theirs")
    service.move("finetuning-other", "Completed", BillableTimeInSeconds=7200)
    add(service, JOB)
    command.show(config, ["run.seed=1"])
    out = capsys.readouterr().out
    theirs, mine = (
        next(line for line in out.splitlines() if line.lstrip().startswith(name))
        for name in ("finetuning-other", JOB)
    )
    assert "3.00" in theirs
    assert "yes" not in theirs
    assert mine.rstrip().endswith("yes")
    assert "run-of-" in mine
    follow = next(line for line in out.splitlines() if "follow:" in line).partition("follow:")[2]
    words = shlex.split(follow)
    assert words[words.index("--config") + 1] == str(config)
    assert words[-5:] == ["--finetune", "--target", "sagemaker", "--attach", JOB]
    assert f"--stop {JOB}" in out


def test_no_jobs_are_said_to_be_none(service, config, capsys):
    command.show(config, [])
    assert capsys.readouterr().out == "no jobs named finetuning-... with results in s3://bucket\n"


def test_stop_says_what_is_left(service, config, capsys):
    add(service, JOB)
    command.stop(JOB, config, [])
    assert service.jobs[JOB]["TrainingJobStatus"] == "Stopping"
    assert "its checkpoints are kept" in capsys.readouterr().out
    service.move(JOB, "Completed", BillableTimeInSeconds=3600)
    command.stop(JOB, config, [])
    out = capsys.readouterr().out
    assert out == f"{JOB} has ended already: completed; it has cost about 1.50 USD so far\n"


def clean(service, config, monkeypatch, days=30, production=(), **options):
    monkeypatch.setattr(command, "_production_jobs", lambda: set(production))
    monkeypatch.setattr(command, "_is_own", lambda run: True)
    command.clean(days, config, [], **{"dry_run": False, **options})


def old(service):
    add(service, JOB, days_ago=800)
    service.move(JOB, "Completed", TrainingEndTime=service.now - timedelta(days=800))


def test_clean_removes_by_age_and_a_dry_run_only_says_so(service, config, monkeypatch, capsys):
    old(service)
    clean(service, config, monkeypatch, dry_run=True)
    assert f"would remove  s3://bucket/ft/results/{JOB}/" in capsys.readouterr().out
    assert service.objects
    clean(service, config, monkeypatch)
    assert "removed  s3://bucket/ft/results/" in capsys.readouterr().out
    assert not service.objects
    clean(service, config, monkeypatch)
    assert "nothing that jobs of 30 days ago and more left" in capsys.readouterr().out


def test_clean_keeps_production_and_says_so(service, config, monkeypatch, capsys):
    old(service)
    clean(service, config, monkeypatch, production=[JOB])
    assert service.objects
    assert f"kept     {JOB}: production came from it" in capsys.readouterr().out


def test_clean_removes_nothing_where_it_is_not_known_what_is_in_production(
    service, config, monkeypatch
):
    old(service)

    def unknown():
        raise RegistryError("which job it came from is not noted")

    monkeypatch.setattr(command, "_production_jobs", unknown)
    monkeypatch.setattr(command, "_is_own", lambda run: True)
    with pytest.raises(RegistryError):
        command.clean(30, config, [], dry_run=False)
    assert service.objects


def test_clean_takes_whole_days(service, config):
    with pytest.raises(ConfigError, match="--clean 0: give a number of days"):
        command.clean(0, config, [], dry_run=True)
