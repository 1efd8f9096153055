"""What this host can run, and the refusals that follow from it."""

from __future__ import annotations

import gc
import platform
import resource
from pathlib import Path

from llm_engineering.configuration.finetuning import FinetuningConfig
from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import HardwareError
from llm_engineering.planning import host_memory

FP8_CAPABILITIES = ((8, 9), (9, 0), (10, 0), (12, 0))
"""Compute capabilities whose tensor cores multiply FP8: Ada, Hopper, Blackwell."""
_CONTEXT_BYTES = 900_000_000  # of CUDA itself, as read on an H100; no other process's


def has_gpu() -> bool:
    """Whether PyTorch sees an NVIDIA GPU."""
    import torch

    return bool(torch.cuda.is_available())


def visible_gpus() -> int:
    """How many NVIDIA GPUs PyTorch sees on this host."""
    import torch

    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


def require_gpus(asked: int) -> None:
    """Refuse a host that has not got the GPUs that the stack was asked for.

    Args:
        asked: ``zenml.resources.gpu_count``.

    Raises:
        HardwareError: It has fewer.
    """
    if asked and (found := visible_gpus()) < asked:
        raise HardwareError(
            f"zenml.resources.gpu_count: {asked}, and PyTorch sees {found} on the host that the stack "
            "gave to the train step: give zenml.train_settings a pool of hosts with GPUs, and "
            "zenml.docker an image whose PyTorch is built for CUDA"
        )


def require_hardware(config: FinetuningConfig) -> None:
    """Refuse settings that this host cannot run, before anything is loaded.

    Raises:
        HardwareError: Lists every setting that needs a GPU when there is none, or says that this GPU
            has no FP8.
    """
    problem = what_prevents_quantisation(config.model)
    if has_gpu():
        if problem:
            raise HardwareError(problem)
        return
    problems = [problem] if problem else []
    if config.train.optimizer != "adamw_torch":
        problems.append(
            f"train.optimizer: {config.train.optimizer} needs an NVIDIA GPU; set adamw_torch"
        )
    if config.train.packing:
        problems.append(
            "train.packing: true needs an NVIDIA GPU: attention on the CPU would let packed rows "
            "see each other; set it to false"
        )
    if problems:
        raise HardwareError("\n".join([*problems, "PyTorch sees no NVIDIA GPU on this host"]))


def what_prevents_quantisation(settings: ModelSettings) -> str | None:
    """Why this host cannot hold the weights as ``model.quantisation`` says, and what to set instead."""
    import torch

    asked = settings.quantisation
    if asked == "none":
        return None
    if not torch.cuda.is_available():
        return f"model.quantisation: {asked} needs an NVIDIA GPU, and PyTorch sees none; set it to none"
    capability = torch.cuda.get_device_capability()
    if asked == "fp8" and capability not in FP8_CAPABILITIES:
        known = ", ".join(f"{major}.{minor}" for major, minor in FP8_CAPABILITIES)
        return (
            f"model.quantisation: fp8 needs a GPU of compute capability {known}, and "
            f"{torch.cuda.get_device_name()} has {capability[0]}.{capability[1]}; set it to none or nf4"
        )
    return None


def resolve_dtype(settings: ModelSettings) -> str:
    """The type of the frozen weights on this host: "float32", "bfloat16" or "float16".

    ``auto`` is bfloat16 on a GPU that has it, float16 on an older GPU, and float32 on a CPU,
    where 16-bit training is slower and less exact.

    Raises:
        HardwareError: Quantised weights on a CPU, or FP8 or bfloat16 on a GPU that has none.
    """
    import torch

    problem = what_prevents_quantisation(settings)
    if problem:
        raise HardwareError(problem)
    if not torch.cuda.is_available():
        return "float32" if settings.dtype == "auto" else settings.dtype
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.dtype == "auto":
        return "bfloat16" if has_bfloat16 else "float16"
    if settings.dtype == "bfloat16" and not has_bfloat16:
        raise HardwareError(
            f"model.dtype: bfloat16 is not supported by this GPU ({torch.cuda.get_device_name()}); "
            "set float16"
        )
    return settings.dtype


def device_kind() -> str:
    """The GPU's name, or "cpu": what decides how numbers are computed, as far as a name can."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """The GPU's name, or the CPU's."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def peak_memory_bytes() -> int:
    """Most memory used so far: reserved on the GPU where there is one, else this process's RAM."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def held_memory_bytes() -> int:
    """Memory in use now: allocated on the GPU where there is one, else this process's RAM."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    return int(psutil.Process().memory_info().rss)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device's memory is used up.

    PyTorch's allocator has a class for it; cuBLAS, which finds no room for its handle, has not.
    """
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error):
        return True
    return isinstance(error, Exception) and should_reduce_batch_size(error)


def wait_for_device() -> None:
    """Return once the GPU has done what it was given; at once on a CPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free_gpu_memory() -> None:
    """Give back what no live tensor holds, and measure the peak anew; nothing on a CPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def gpu_capacity_bytes() -> int:
    """Bytes of the GPU that this process can have: all of it, less what other processes hold."""
    import torch

    free, total = torch.cuda.mem_get_info()
    ours = torch.cuda.memory_reserved() + _CONTEXT_BYTES
    return int(total - max(0, total - free - ours))


def free_host_bytes() -> int:
    """Bytes of the host's memory that can be had without swapping, within a container's limit."""
    import psutil

    free = host_memory.free_host_bytes()
    return int(psutil.virtual_memory().available) if free is None else free
