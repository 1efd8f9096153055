"""Results that somebody has replaced in S3, inventory and all, do not match the job's log."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker import anchor
from llm_engineering.sagemaker.anchor import anchor_line, hold_against_log
from llm_engineering.sagemaker.follow import Pace

JOB = {"TrainingJobName": "job-1"}
SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    region="us-east-1",
)


@pytest.fixture
def service():
    return MemoryService()


@pytest.fixture
def inventory(tmp_path):
    path = tmp_path / "inventory.json"
    path.write_text('{"adapter": "1"}')
    return path


@pytest.fixture
def hold(service, inventory):
    def hold(job=JOB):
        return hold_against_log(
            MemoryAws(SETTINGS, service), job, inventory, Pace(poll_s=0.001, patience_s=0.01)
        )

    return hold


def test_the_jobs_own_results_pass(service, inventory, hold):
    service.logs["job-1/algo-1"] = ["training", anchor_line(inventory)]
    service.logs["job-1/algo-2"] = ["training"]
    assert hold()


def test_an_altered_inventory_is_refused(service, inventory, hold):
    service.logs["job-1/algo-1"] = [anchor_line(inventory)]
    inventory.write_text('{"adapter": "2"}')
    with pytest.raises(
        LaunchError, match=r"the job's log says [0-9a-f]{64}\. Somebody has replaced"
    ):
        hold()


def test_what_a_row_or_an_answer_says_is_not_the_jobs_last_word(service, inventory, hold):
    """Training text may be logged; the job's own line comes after, and stands alone."""
    forged = inventory.with_name("forged.json")
    forged.write_text("{}")
    service.logs["job-1/algo-1"] = [
        anchor_line(forged), anchor_line(inventory), f"answer: {anchor_line(forged)}",
    ]  # fmt: skip
    assert hold()


@pytest.mark.parametrize(
    ("denied", "why"),
    [(True, "may not be read here"), (False, "has no digest of them, or is gone")],
)
def test_without_a_digest_it_is_said(service, hold, caplog, denied, why):
    service.logs["job-1/algo-1"] = ["of before there was one"]
    if denied:
        service.always["get_log_events"] = client_error("AccessDeniedException")
    assert not hold()
    assert f"checked for damage, not for forgery: its log {why}" in caplog.text


def test_a_last_line_that_is_yet_to_come_is_waited_for(service, inventory, hold, monkeypatch):
    service.logs["job-1/algo-1"] = ["training"]

    def sleep(seconds):
        service.logs["job-1/algo-1"].append(anchor_line(inventory))

    monkeypatch.setattr(anchor.time, "sleep", sleep)
    assert hold({**JOB, "TrainingEndTime": datetime.now(UTC)})
