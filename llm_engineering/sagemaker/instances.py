"""The GPUs and the storage of SageMaker's training instances.

Figures are those that EC2 itself reports (DescribeInstanceTypes: GpuInfo, InstanceStorageInfo), which
the pages
https://docs.aws.amazon.com/ec2/latest/instancetypes/ac.html list; a SageMaker type ``ml.x`` is
EC2's ``x``. EC2 reports 22.4 GiB for an A10G or L4 and 44.7 GiB for an L40S, where data sheets
say 24 and 48. Left out are types that this project's requirements do not fit: p2 (its K80 is too
old for CUDA 12) and p6e-gb200 (Arm). A V100 (p3, p3dn) needs an image with CUDA 12: CUDA 13 dropped it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from llm_engineering.errors import LaunchError


@dataclass(frozen=True)
class Instance:
    """A SageMaker instance type with GPUs."""

    name: str  # ml.<family>.<size>
    gpu: str  # NVIDIA's name
    gpus: int
    gpu_memory_gib: float  # of one GPU
    bfloat16: bool  # whether the GPU computes in bfloat16, as NVIDIA's do from Ampere on
    storage_gb: int | None  # of its local NVMe store; None: it has EBS, of the size asked for


_Sizes = dict[str, tuple[int, int | None]]


def _family(
    name: str, gpu: str, memory_mib: int, sizes: _Sizes, *, bfloat16: bool = True
) -> list[Instance]:
    """Instances of one family; ``sizes`` gives GPUs and GB of local storage of each size."""
    return [
        Instance(f"ml.{name}.{size}", gpu, gpus, round(memory_mib / 1024, 2), bfloat16, storage)
        for size, (gpus, storage) in sizes.items()
    ]


_G5_SIZES: _Sizes = {
    "xlarge": (1, 250),
    "2xlarge": (1, 450),
    "4xlarge": (1, 600),
    "8xlarge": (1, 900),
    "12xlarge": (4, 3_800),
    "16xlarge": (1, 1_900),
    "24xlarge": (4, 3_800),
    "48xlarge": (8, 7_600),
}
_G6_SIZES: _Sizes = _G5_SIZES | {
    "12xlarge": (4, 3_760),
    "16xlarge": (1, 1_880),
    "24xlarge": (4, 3_760),
    "48xlarge": (8, 7_520),
}
_G7_SIZES: _Sizes = {
    "2xlarge": (1, 440),
    "4xlarge": (1, 875),
    "8xlarge": (1, 930),
    "12xlarge": (2, 1_900),
    "24xlarge": (4, 3_800),
    "48xlarge": (8, 7_600),
}
_G7E_SIZES: _Sizes = {
    "2xlarge": (1, 1_900),
    "4xlarge": (1, 1_900),
    "8xlarge": (1, 1_900),
    "12xlarge": (2, 3_800),
    "24xlarge": (4, 7_600),
    "48xlarge": (8, 15_200),
}
_G4DN_SIZES: _Sizes = {
    "xlarge": (1, 125),
    "2xlarge": (1, 225),
    "4xlarge": (1, 225),
    "8xlarge": (1, 900),
    "12xlarge": (4, 900),
    "16xlarge": (1, 900),
}
_P3_SIZES: _Sizes = {"2xlarge": (1, None), "8xlarge": (4, None), "16xlarge": (8, None)}
_P5_SIZES: _Sizes = {"4xlarge": (1, 3_800), "48xlarge": (8, 30_400)}
_LARGEST: _Sizes = {"48xlarge": (8, 30_400)}

INSTANCES: dict[str, Instance] = {
    instance.name: instance
    for family in (
        _family("g4dn", "T4", 16_384, _G4DN_SIZES, bfloat16=False),
        _family("g5", "A10G", 22_888, _G5_SIZES),
        _family("g6", "L4", 22_888, _G6_SIZES),
        _family("g6e", "L40S", 45_776, _G5_SIZES),
        _family("g7", "RTX PRO 4500", 32_768, _G7_SIZES),
        _family("g7e", "RTX PRO 6000", 98_304, _G7E_SIZES),
        _family("p3", "V100", 16_384, _P3_SIZES, bfloat16=False),
        _family("p3dn", "V100", 32_768, {"24xlarge": (8, 1_800)}, bfloat16=False),
        _family("p4d", "A100", 40_960, {"24xlarge": (8, 8_000)}),
        _family("p4de", "A100", 81_920, {"24xlarge": (8, 8_000)}),
        _family("p5", "H100", 81_920, _P5_SIZES),
        _family("p5e", "H200", 144_384, _LARGEST),
        _family("p5en", "H200", 144_384, _LARGEST),
        _family("p6-b200", "B200", 183_359, _LARGEST),
        _family("p6-b300", "B300", 275_040, _LARGEST),
    )
    for instance in family
}
# Families of general, compute and memory instances, and of Trainium, AWS's own accelerator.
_WITHOUT_GPU = re.compile(r"ml\.(?P<kind>[mcrt]|trn)\d[a-z0-9-]*\.[a-z0-9]+")


def require_gpu_instance(name: str, key: str) -> Instance:
    """Return what is known of an instance type.

    Args:
        name: SageMaker's name of the type, such as "ml.g5.xlarge".
        key: The configuration key that names it, for the message.

    Raises:
        LaunchError: The type has no NVIDIA GPU, or is not known.
    """
    if name in INSTANCES:
        return INSTANCES[name]
    if match := _WITHOUT_GPU.fullmatch(name):
        accelerator = " but Trainium, which CUDA does not run on" if match["kind"] == "trn" else ""
        raise LaunchError(
            f"{key}: {name} has no GPU{accelerator}; choose a GPU type, for example ml.g5.2xlarge"
        )
    names = list(INSTANCES)
    prefixed = name if name.startswith("ml.") else f"ml.{name}"
    close = difflib.get_close_matches(prefixed, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
    raise LaunchError(f"{key}: {name!r} is not an instance type with a GPU that is known; {hint}")
