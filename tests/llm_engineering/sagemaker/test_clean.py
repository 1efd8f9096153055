"""Cleaning: only what old jobs of this store left, never what a live or a production job needs."""

from __future__ import annotations

from datetime import timedelta

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.clean import find_leftovers, remove
from llm_engineering.sagemaker.project_jobs import project_jobs

SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    prefix="ft",
    region="us-east-1",
    price_per_hour={"ml.g5.2xlarge": 1.5},
)


@pytest.fixture
def service():
    return MemoryService()


def ended(service, name, days_ago, *, data, chain=None, status="Completed", run=None, age=None):
    """A job of so many days ago, and its folders in S3."""
    chain, now = chain or name, service.now
    age = days_ago if age is None else age
    service.now = now - timedelta(days=days_ago)
    service.create_training_job(
        TrainingJobName=name,
        ResourceConfig={"InstanceType": "ml.g5.2xlarge"},
        OutputDataConfig={"S3OutputPath": "s3://bucket/ft/results"},
        CheckpointConfig={"S3Uri": f"s3://bucket/ft/checkpoints/{chain}"},
        InputDataConfig=[
            {
                "ChannelName": kind,
                "DataSource": {"S3DataSource": {"S3Uri": f"s3://bucket/ft/{kind}/{data * 64}/"}},
            }
            for kind in ("data", "models")
        ],
        Tags=[{"Key": "run", "Value": run or f"run-{name}"}],
    )
    if status != "InProgress":
        service.move(name, status)
    service.now = now
    service.put(f"ft/results/{name}/output/model.tar.gz", days_ago=age)
    service.put(f"ft/checkpoints/{chain}/checkpoint-2/x", days_ago=age)
    for kind in ("data", "models"):
        service.put(f"ft/{kind}/{data * 64}/file", days_ago=age)


def cleaned(service, *, production=(), foreign=(), days=30):
    aws = MemoryAws(SETTINGS, service)
    jobs = project_jobs(aws, SETTINGS)
    found = find_leftovers(
        aws, SETTINGS, jobs, days=days, production=set(production),
        own_runs={job.run for job in jobs} - set(foreign), now=service.now,
    )  # fmt: skip
    for folder in found.folders:
        remove(aws, folder)
    return found


def test_what_an_old_job_left_is_removed_and_what_a_young_one_has_stays(service):
    ended(service, "finetuning-old", 60, data="a")
    ended(service, "finetuning-young", 3, data="b")
    found = cleaned(service)
    assert [folder.uri for folder in found.folders] == [
        "s3://bucket/ft/checkpoints/finetuning-old/",
        f"s3://bucket/ft/data/{'a' * 64}/",
        f"s3://bucket/ft/models/{'a' * 64}/",
        "s3://bucket/ft/results/finetuning-old/",
    ]
    assert sorted(service.objects) == [
        "ft/checkpoints/finetuning-young/checkpoint-2/x",
        f"ft/data/{'b' * 64}/file",
        f"ft/models/{'b' * 64}/file",
        "ft/results/finetuning-young/output/model.tar.gz",
    ]
    assert cleaned(service).folders == (), "a second time there is nothing"


def test_what_production_came_from_stays_whatever_its_age(service):
    ended(service, "finetuning-old", 400, data="a")
    before = dict(service.objects)
    found = cleaned(service, production=["finetuning-old"])
    assert service.objects == before
    assert found.kept == {"finetuning-old": "production came from it"}


def test_another_stores_job_stays_since_its_production_is_not_known_here(service):
    ended(service, "finetuning-theirs", 400, data="a", run="theirs")
    before = dict(service.objects)
    found = cleaned(service, foreign=["theirs"])
    assert service.objects == before
    assert "another ZenML store" in found.kept["finetuning-theirs"]


@pytest.mark.parametrize("status", ["InProgress", "Stopping"])
def test_a_live_jobs_folders_stay_and_so_does_what_it_shares_with_an_old_one(service, status):
    """An old attempt and the one that goes on from it: one chain of checkpoints, one data set."""
    ended(service, "finetuning-x", 90, data="a", status="Stopped")
    ended(service, "finetuning-x-2", 90, data="a", chain="finetuning-x", status=status)
    found = cleaned(service)
    assert [folder.uri for folder in found.folders] == ["s3://bucket/ft/results/finetuning-x/"]
    assert "ft/checkpoints/finetuning-x/checkpoint-2/x" in service.objects


def test_a_young_object_in_an_old_folder_keeps_it(service):
    """Another launch has just put its data there, and has not submitted yet."""
    ended(service, "finetuning-old", 60, data="a")
    service.put(f"ft/data/{'a' * 64}/file", days_ago=0)
    cleaned(service)
    assert f"ft/data/{'a' * 64}/file" in service.objects


def test_nothing_outside_of_the_prefix_is_touched(service):
    ended(service, "finetuning-old", 60, data="a")
    job = service.jobs["finetuning-old"]
    job["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://bucket/others/"
    job["CheckpointConfig"]["S3Uri"] = "s3://bucket/ft/"
    service.put("others/file", days_ago=90)
    service.put("ft/file", days_ago=90)
    found = cleaned(service)
    assert {folder.uri for folder in found.folders} == {
        f"s3://bucket/ft/models/{'a' * 64}/",
        "s3://bucket/ft/results/finetuning-old/",
    }
    assert {"others/file", "ft/file"} <= set(service.objects)


def test_a_base_model_of_the_users_stays_also_below_the_prefix(service):
    ended(service, "finetuning-old", 60, data="a")
    job = service.jobs["finetuning-old"]
    channel = job["InputDataConfig"][1]["DataSource"]["S3DataSource"]
    channel["S3Uri"] = "s3://bucket/ft/models/llama-8b"
    service.put("ft/models/llama-8b/model.safetensors", days_ago=90)
    cleaned(service)
    assert "ft/models/llama-8b/model.safetensors" in service.objects


def test_jobs_of_other_projects_are_not_seen(service):
    ended(service, "finetuning-ours", 60, data="a")
    service.create_training_job(
        TrainingJobName="finetuning-elsewhere",
        OutputDataConfig={"S3OutputPath": "s3://another/place"},
    )
    service.create_training_job(TrainingJobName="x-finetuning-y")
    names = [job.name for job in project_jobs(MemoryAws(SETTINGS, service), SETTINGS)]
    assert names == ["finetuning-ours"]


def test_what_may_not_be_removed_names_the_permission(service):
    ended(service, "finetuning-old", 60, data="a")
    service.always["delete_objects"] = client_error("AccessDenied", status=403)
    with pytest.raises(LaunchError, match="--clean needs s3:DeleteObject"):
        cleaned(service)


def test_more_than_a_thousand_objects_are_removed(service):
    ended(service, "finetuning-old", 60, data="a")
    for number in range(1500):
        service.put(f"ft/checkpoints/finetuning-old/{number}", days_ago=60)
    cleaned(service)
    assert service.objects == {}
    assert service.calls["delete_objects"] == 5, "at most a thousand at once, as S3 takes them"
