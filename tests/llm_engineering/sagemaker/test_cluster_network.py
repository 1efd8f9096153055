"""Instances of one job find each other by the settings of AWS's own driver."""

from __future__ import annotations

import json
import os

import pytest

from llm_engineering.sagemaker.cluster_network import EFA, RDMA, cluster_environment
from llm_engineering.sagemaker.job import JobFolders, read_placement


def test_the_tables_are_those_of_the_sdks_torchrun_driver():
    utils = pytest.importorskip(
        "sagemaker.train.container_drivers.common.utils", reason="the SDK is not installed"
    )
    gpu = {name for name in utils.SM_EFA_NCCL_INSTANCES if not name.startswith("ml.trn")}
    assert gpu == EFA
    assert {n for n in utils.SM_EFA_RDMA_INSTANCES if not n.startswith("ml.trn")} == RDMA


@pytest.mark.parametrize("instance", ["ml.g5.12xlarge", "ml.g5.48xlarge", "ml.p4d.24xlarge"])
def test_the_variables_are_those_of_the_sdks_torchrun_driver(monkeypatch, instance):
    pytest.importorskip("sagemaker.train", reason="the SDK is not installed")
    import importlib
    import sys
    from pathlib import Path

    import sagemaker.train

    folder = Path(next(iter(sagemaker.train.__path__))) / "container_drivers"
    monkeypatch.syspath_prepend(str(folder))
    for name in ("common", "common.utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    driver = importlib.import_module("distributed_drivers.torchrun_driver")
    names = ("FI_PROVIDER", "FI_EFA_USE_DEVICE_RDMA", "RDMAV_FORK_SAFE", "NCCL_SOCKET_IFNAME",
             "NCCL_PROTO")  # fmt: skip
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SM_CURRENT_INSTANCE_TYPE", instance)
    monkeypatch.setenv("SM_NETWORK_INTERFACE_NAME", "eth7")
    with monkeypatch.context():
        driver.setup_env()
        theirs = {name: os.environ.pop(name) for name in names if name in os.environ}
    assert cluster_environment(instance, "eth7") == theirs


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("FI_PROVIDER", "FI_EFA_USE_DEVICE_RDMA", "RDMAV_FORK_SAFE", "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, "x")  # restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("NCCL_PROTO", "LL128")
    (tmp_path / "input" / "config").mkdir(parents=True)

    def write(*hosts):
        cluster = {
            "hosts": list(hosts),
            "current_host": hosts[-1],
            "current_instance_type": "ml.p5.48xlarge",
            "network_interface_name": "eth1",
        }
        path = tmp_path / "input" / "config" / "resourceconfig.json"
        path.write_text(json.dumps(cluster))
        return read_placement(JobFolders(tmp_path))

    return write


def test_a_job_of_several_instances_sets_them_and_a_configured_one_stays(place):
    placement = place("algo-1", "algo-2")
    assert (placement.hosts, placement.host) == (("algo-1", "algo-2"), 1)
    assert os.environ["NCCL_SOCKET_IFNAME"] == "eth1"
    assert os.environ["FI_PROVIDER"] == "efa"
    assert os.environ["FI_EFA_USE_DEVICE_RDMA"] == "1"
    assert os.environ["NCCL_PROTO"] == "LL128"


def test_a_job_of_one_instance_sets_none(place):
    place("algo-1")
    assert "NCCL_SOCKET_IFNAME" not in os.environ
    assert "FI_PROVIDER" not in os.environ
