"""How the instances of one job reach each other: the variables that NCCL and libfabric read.

They are those of the SageMaker SDK's Torchrun driver (``sagemaker.train.container_drivers``), which a
job does not run under: ours starts its own ranks. ``tests/`` holds these tables against the SDK's.
"""

from __future__ import annotations

EFA = frozenset(
    {
        "ml.g4dn.8xlarge",
        "ml.g4dn.12xlarge",
        "ml.g5.48xlarge",
        "ml.p3dn.24xlarge",
        "ml.p4d.24xlarge",
        "ml.p4de.24xlarge",
        "ml.p5.48xlarge",
        "ml.p5e.48xlarge",
    }
)
"""Types whose instances SageMaker joins by an Elastic Fabric Adapter that must be asked for."""
RDMA = frozenset({"ml.p4d.24xlarge", "ml.p4de.24xlarge", "ml.p5.48xlarge", "ml.p5e.48xlarge"})
"""Those whose adapter reads and writes the other's memory."""


def cluster_environment(instance_type: str, interface: str) -> dict[str, str]:
    """The variables of each rank, where a job has several instances.

    Args:
        instance_type: Of all of them.
        interface: The network interface that the service names, for example "eth0".
    """
    variables = {"NCCL_SOCKET_IFNAME": interface, "NCCL_PROTO": "simple"}
    if instance_type in EFA:
        variables["FI_PROVIDER"] = "efa"
    if instance_type in RDMA:
        variables |= {"FI_EFA_USE_DEVICE_RDMA": "1", "RDMAV_FORK_SAFE": "1"}
    return variables
