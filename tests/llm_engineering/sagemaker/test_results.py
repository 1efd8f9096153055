"""What a job made is taken whole and as it is, or not at all; what is gone is said in a sentence."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime

import pytest

pytest.importorskip("boto3", reason="the sagemaker group is not installed")

from botocore.exceptions import EndpointConnectionError
from sagemaker_service.memory import MemoryAws, MemoryService, client_error

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.sagemaker import SagemakerSettings
from llm_engineering.errors import AwsUnavailableError, LaunchError
from llm_engineering.sagemaker import results
from llm_engineering.sagemaker.anchor import anchor_line
from llm_engineering.sagemaker.follow import Pace
from llm_engineering.sagemaker.results import fetch_results, most_bytes
from llm_engineering.sagemaker.serving_layout import ServedFrom, arrange

KEY = "ft/results/job-1/output/model.tar.gz"
SETTINGS = SagemakerSettings(
    instance_types=["ml.g5.2xlarge"],
    role="arn:aws:iam::123456789012:role/x",
    bucket="bucket",
    region="us-east-1",
    price_per_hour={"ml.g5.2xlarge": 1.5},
)
JOB = {
    "TrainingJobName": "job-1",
    "TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/job-1",
    "TrainingJobStatus": "Completed",
    "SecondaryStatus": "Completed",
    "CreationTime": datetime(2026, 11, 27, tzinfo=UTC),
    "ModelArtifacts": {"S3ModelArtifacts": f"s3://bucket/{KEY}"},
    "ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 2},
    "AlgorithmSpecification": {"TrainingImage": "an/image"},
    "BillableTimeInSeconds": 3600,
    "TrainingTimeInSeconds": 4000,
}


@pytest.fixture
def service():
    return MemoryService()


@pytest.fixture
def fetch(service, recipe, tmp_path):
    def fetch(job=JOB):
        return fetch_results(
            MemoryAws(SETTINGS, service), job, recipe, SETTINGS, tmp_path / "run",
            pace=Pace(poll_s=0.001, patience_s=0.5),
        )  # fmt: skip

    return fetch


def put(service, folder, *members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.add(folder, arcname=".")
        for member in members:
            archive.addfile(member)
    service.put(KEY, buffer.getvalue())


def test_it_is_what_a_local_run_would_have_made(service, fetch, left_by_a_job, tmp_path):
    put(service, left_by_a_job(tmp_path / "model"))
    adapter, record = fetch()
    assert (adapter.folder / "adapter_model.safetensors").read_bytes() == b"weights" * 100
    assert record.evaluation.after.loss == 2.8
    assert record.job.cost_usd == pytest.approx(2 * 1.5), "of both instances"
    assert record.job.billable_seconds == 3600


def test_every_hosts_files_come_home(service, fetch, left_by_a_job, tmp_path):
    from llm_engineering.sagemaker.model_archive import write_inventory

    model = left_by_a_job(tmp_path / "model")
    (model / "algo-2").mkdir()
    (model / "algo-2" / "notes.txt").write_text("of the second host")
    write_inventory(model)
    put(service, model)
    fetch()
    assert (tmp_path / "run" / "job" / "algo-2" / "notes.txt").read_text() == "of the second host"


def test_a_link_in_the_archive_is_not_followed(service, fetch, left_by_a_job, tmp_path):
    """`tarfile.extractall` would make it, here to a file of the user's."""
    link = tarfile.TarInfo("secret")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    put(service, left_by_a_job(tmp_path / "model"), link)
    with pytest.raises(LaunchError, match="'secret' is a link to '/etc/passwd'"):
        fetch()
    assert not (tmp_path / "run" / "adapter").exists()


def test_an_adapter_that_is_not_the_manifests_is_refused(service, fetch, left_by_a_job, tmp_path):
    put(service, left_by_a_job(tmp_path / "model", adapter_digest="0" * 64))
    with pytest.raises(LaunchError, match=r"its adapter has digest .*, its manifest says 0000"):
        fetch()


def test_a_model_that_was_replaced_with_a_matching_inventory_is_refused(
    service, fetch, left_by_a_job, tmp_path
):
    """Altered weights, with manifest and inventory to match: only the job's log knows better."""
    model = left_by_a_job(tmp_path / "model")
    service.logs["job-1/algo-1"] = [anchor_line(model / "inventory.json")]
    put(service, model)
    assert fetch()[1].job.is_anchored
    forged = left_by_a_job(tmp_path / "forged", weights=b"another" * 100)
    put(service, forged)
    with pytest.raises(LaunchError, match="its results are not those that it left"):
        fetch()
    assert not (tmp_path / "run" / "job" / "adapter" / "x").exists()


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "manifest.json"])
def test_a_file_that_was_altered_alone_is_refused(service, fetch, left_by_a_job, tmp_path, name):
    model = left_by_a_job(tmp_path / "model")
    content = bytearray((model / name).read_bytes())
    content[-2] ^= 1
    (model / name).write_bytes(bytes(content))
    put(service, model)
    with pytest.raises(LaunchError, match=f"altered: {name}"):
        fetch()


def test_what_serves_comes_home_as_a_local_run_has_it(service, fetch, left_by_a_job, tmp_path):
    served = ServedFrom(name="tiny", base="owner/name")
    config = FinetuningConfig.model_validate(
        {
            "model": {"id": "owner/name"},
            "data": {"sources": [{"source": "a.jsonl"}], "held_out": {"fraction": 0.1}},
        }
    )
    model = left_by_a_job(tmp_path / "model", arranged=lambda f: arrange(f, served, config))
    put(service, model)
    adapter, record = fetch()
    assert (adapter.folder / "adapter_model.safetensors").is_file()
    assert record.job.model_artifact == f"s3://bucket/{KEY}"
    assert record.job.serving == "LMI: the adapter tiny, on owner/name"
    assert not record.job.is_anchored, "its log has no digest"


def test_adapted_modules_in_another_order_are_no_difference(
    service, left_by_a_job, recipe, tmp_path, caplog
):
    """Files are sorted by name, a model's modules are not."""
    put(service, left_by_a_job(tmp_path / "model"))
    service.logs["job-1/algo-1"] = [anchor_line(tmp_path / "model" / "inventory.json")]

    def fetch(planned):
        caplog.clear()
        fetch_results(MemoryAws(SETTINGS, service), JOB, planned, SETTINGS, tmp_path / "run")
        return caplog.text

    assert fetch(recipe) == ""
    other = recipe.model_copy(update={"total_parameters": 1})
    assert "differs from what was planned in: total_parameters" in fetch(other)


def test_a_model_that_was_deleted_is_one_sentence(fetch):
    with pytest.raises(LaunchError) as error:
        fetch()
    assert str(error.value) == (
        f"job job-1 has completed, but its model s3://bucket/{KEY} is not there any more: it was "
        "deleted, by hand or by a lifecycle rule; --no-cache trains again, and pays again"
    )


def test_a_model_that_may_not_be_read_names_the_permission(service, fetch):
    service.always["download_file"] = client_error("403", "Forbidden", 403)
    with pytest.raises(LaunchError, match="allow s3:GetObject"):
        fetch()


@pytest.mark.parametrize(
    "error", [client_error("400", "Bad Request"), EndpointConnectionError(endpoint_url="u")]
)
def test_trouble_at_the_fetch_is_outlived(service, fetch, left_by_a_job, tmp_path, error):
    put(service, left_by_a_job(tmp_path / "model"))
    service.failures["download_file"] = [error] * 2
    assert fetch()[0].digest
    service.always["download_file"] = error
    with pytest.raises(AwsUnavailableError):
        fetch()


def test_a_disk_that_is_full_leaves_the_model_in_s3(service, fetch):
    service.always["download_file"] = OSError(28, "No space left on device")
    with pytest.raises(LaunchError, match=r"No space left on device\); it stays in S3"):
        fetch()


def test_a_completed_job_without_a_model_is_told(fetch):
    with pytest.raises(LaunchError, match="AWS names no model"):
        fetch({**JOB, "ModelArtifacts": {}})


def test_the_archives_limit_grows_with_the_exports_of_a_large_model(recipe):
    large = recipe.model_copy(update={"total_parameters": 70_000_000_000})
    assert most_bytes(large) > 2 * 70e9 * 2, "merged and GGUF, in 16 bit"
    assert most_bytes(recipe) < results.MAX_BYTES + 2**30
