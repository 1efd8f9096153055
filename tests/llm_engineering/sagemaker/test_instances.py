"""The table of instances agrees with what EC2 reports and SageMaker offers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import botocore
import moto
import pytest

from llm_engineering.errors import LaunchError
from llm_engineering.sagemaker.instances import INSTANCES, Instance, require_gpu_instance

# Not in any EC2 catalogue here; the figures of AWS Batch's page on GPU jobs.
P3 = {"ml.p3.2xlarge": 1, "ml.p3.8xlarge": 4, "ml.p3.16xlarge": 8}
NOT_IN_THE_TABLE = {"p2", "p6e-gb200"}


def read_gzipped(path: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress(path.read_bytes()))


@pytest.fixture(scope="module")
def ec2() -> dict[str, Any]:
    """EC2's own description of its types, as moto recorded it."""
    return read_gzipped(Path(moto.__file__).parent / "ec2" / "resources" / "instance_types.json.gz")


@pytest.fixture(scope="module")
def offered() -> set[str]:
    """The types of CreateTrainingJob, from botocore's model of it."""
    data = Path(botocore.__file__).parent / "data" / "sagemaker" / "2017-07-24"
    return set(read_gzipped(data / "service-2.json.gz")["shapes"]["TrainingInstanceType"]["enum"])


@pytest.mark.parametrize("name", sorted(INSTANCES.keys() - P3.keys()))
def test_the_figures_are_ec2_s(name: str, ec2: dict[str, Any]) -> None:
    (gpu,) = ec2[name.removeprefix("ml.")]["GpuInfo"]["Gpus"]
    instance = INSTANCES[name]
    assert instance.name == name
    assert instance.gpus == gpu["Count"]
    assert instance.gpu_memory_gib == pytest.approx(gpu["MemoryInfo"]["SizeInMiB"] / 1024, abs=0.01)
    storage = ec2[name.removeprefix("ml.")].get("InstanceStorageInfo", {})
    assert instance.storage_gb == storage.get("TotalSizeInGB")
    assert instance.gpu == gpu["Name"].replace("RTX PRO Server 6000", "RTX PRO 6000")


@pytest.mark.parametrize(("name", "gpus"), P3.items())
def test_the_figures_of_p3(name: str, gpus: int) -> None:
    assert INSTANCES[name] == Instance(name, "V100", gpus, 16.0, bfloat16=False, storage_gb=None)


def test_every_gpu_type_that_sagemaker_offers_is_in_the_table(offered: set[str]) -> None:
    gpu_types = {
        name for name in offered if name[3] in "gp" and name.split(".")[1] not in NOT_IN_THE_TABLE
    }
    assert set(INSTANCES) == gpu_types


def test_only_gpus_before_ampere_lack_bfloat16() -> None:
    assert {i.gpu for i in INSTANCES.values() if not i.bfloat16} == {"T4", "V100"}


def test_a_known_type_is_returned() -> None:
    assert require_gpu_instance("ml.g5.12xlarge", "sagemaker.instances[0]") == Instance(
        "ml.g5.12xlarge", "A10G", 4, 22.35, bfloat16=True, storage_gb=3_800
    )


def test_no_type_without_a_gpu_passes(offered: set[str]) -> None:
    without = {name for name in offered if name[3] not in "gp"}
    assert len(without) > 100
    for name in without:
        with pytest.raises(LaunchError, match=rf"^sagemaker\.instances\[1\]: {name} has no GPU"):
            require_gpu_instance(name, "sagemaker.instances[1]")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "ml.m5.xlarge",
            "sagemaker.instances: ml.m5.xlarge has no GPU; choose a GPU type, for example "
            "ml.g5.2xlarge",
        ),
        (
            "ml.trn1.2xlarge",
            "sagemaker.instances: ml.trn1.2xlarge has no GPU but Trainium, which CUDA does not run "
            "on; choose a GPU type, for example ml.g5.2xlarge",
        ),
        (
            "g5.2xlarge",
            "sagemaker.instances: 'g5.2xlarge' is not an instance type with a GPU that is known; "
            "did you mean ml.g5.2xlarge?",
        ),
        (
            "ml.p4d.48xlarge",
            "sagemaker.instances: 'ml.p4d.48xlarge' is not an instance type with a GPU that is "
            "known; did you mean ml.p4d.24xlarge?",
        ),
    ],
)
def test_a_refusal_says_what_to_choose(name: str, message: str) -> None:
    with pytest.raises(LaunchError) as caught:
        require_gpu_instance(name, "sagemaker.instances")
    assert str(caught.value) == message


def test_with_nothing_near_all_known_types_are_listed() -> None:
    with pytest.raises(LaunchError, match=r"known are ml\.g4dn\.xlarge, .*ml\.p6-b300\.48xlarge$"):
        require_gpu_instance("", "sagemaker.instances")
