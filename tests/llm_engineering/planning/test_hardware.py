"""Which weights a device can hold, and which errors say that its memory is used up."""

import platform
import resource
from types import SimpleNamespace

import psutil
import pytest
import torch

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import HardwareError
from llm_engineering.planning import hardware
from llm_engineering.planning.hardware import is_out_of_memory, resolve_dtype


@pytest.fixture
def host(monkeypatch):
    """``host(name, ...)``: a host of four such cards, or of a CPU alone."""

    def make(name=None, *, bfloat16=True, capability=(9, 0), free=0, total=0, reserved=0):
        for function, value in {
            "is_available": name is not None, "device_count": 4, "get_device_name": name,
            "get_device_capability": capability, "mem_get_info": (free, total),
            "memory_reserved": reserved, "max_memory_reserved": 7, "memory_allocated": 6,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, function, lambda value=value: value)
        # A card that only emulates it says that it has it, if so asked.
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: including_emulation or bfloat16,
        )

    return make


def test_gpus_are_counted_where_pytorch_can_use_them(host):
    host("H100")
    assert (hardware.has_gpu(), hardware.visible_gpus(), hardware.device_kind()) == (
        True,
        4,
        "H100",
    )
    host()
    assert (hardware.has_gpu(), hardware.visible_gpus(), hardware.device_kind()) == (
        False,
        0,
        "cpu",
    )


def test_a_host_with_fewer_gpus_than_the_stack_was_asked_for_is_refused(host):
    host("H100")
    hardware.require_gpus(0)
    hardware.require_gpus(4)
    with pytest.raises(HardwareError, match=r"zenml\.resources\.gpu_count: 5, and PyTorch sees 4"):
        hardware.require_gpus(5)


def asked(quantisation="none", **train):
    return SimpleNamespace(
        model=ModelSettings(id="a/b", quantisation=quantisation), train=TrainSettings(**train)
    )


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        (asked(optimizer="adamw_torch"), []),
        (asked(optimizer="adamw_8bit"), ["train.optimizer: adamw_8bit"]),
        (asked(optimizer="adamw_torch", packing=True), ["train.packing: true"]),
        (
            asked("nf4", optimizer="paged_adamw_8bit", packing=True),
            ["model.quantisation: nf4", "train.optimizer: paged_adamw_8bit", "train.packing: true"],
        ),
    ],
)
def test_a_cpu_is_told_of_every_setting_that_needs_a_gpu(settings, keys, host):
    host("H100")
    hardware.require_hardware(settings)
    host()
    if not keys:
        hardware.require_hardware(settings)
        return
    with pytest.raises(HardwareError) as caught:
        hardware.require_hardware(settings)
    *lines, last = str(caught.value).splitlines()
    assert [line.partition(" needs an NVIDIA GPU")[0] for line in lines] == keys
    assert last == "PyTorch sees no NVIDIA GPU on this host"


def test_a_gpu_without_fp8_is_refused_at_once(host):
    host("T4", capability=(7, 5))
    with pytest.raises(HardwareError, match=r"T4 has 7\.5"):
        hardware.require_hardware(asked("fp8"))


@pytest.mark.parametrize(
    ("card", "bfloat16", "dtype", "resolved"),
    [
        (None, False, "auto", "float32"),
        (None, False, "bfloat16", "bfloat16"),
        ("H100", True, "auto", "bfloat16"),
        ("H100", True, "bfloat16", "bfloat16"),
        ("H100", True, "float16", "float16"),
        ("T4", False, "auto", "float16"),
        ("T4", False, "float16", "float16"),
        ("T4", False, "float32", "float32"),
        ("T4", False, "bfloat16", None),
    ],
)
def test_weights_are_of_a_type_that_the_device_computes_in(card, bfloat16, dtype, resolved, host):
    host(card, bfloat16=bfloat16)
    settings = ModelSettings(id="a/b", dtype=dtype)
    if resolved is not None:
        assert resolve_dtype(settings) == resolved
        return
    with pytest.raises(HardwareError, match=r"model\.dtype: bfloat16 .*T4.*set float16"):
        resolve_dtype(settings)


def test_the_device_is_named(host, monkeypatch, tmp_path):
    host("H100")
    assert hardware.device_name() == "H100"
    host()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "Path", lambda path: {"/proc/cpuinfo": told}[path])
    told.write_text("processor\t: 0\nmodel name\t: A CPU: 2.0 GHz: new\nmodel name\t: Another\n")
    assert hardware.device_name() == "A CPU: 2.0 GHz: new, 3 threads"
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    for processor, name in (("arm", "arm"), ("", "arm64")):
        monkeypatch.setattr(platform, "processor", lambda value=processor: value)
        told.write_text("processor\t: 0\n")
        assert hardware.device_name() == f"{name}, 3 threads"
        told.unlink()
        assert hardware.device_name() == f"{name}, 3 threads"


def test_memory_used_is_the_gpus_or_this_processs(host, monkeypatch):
    host("H100")
    assert (hardware.peak_memory_bytes(), hardware.held_memory_bytes()) == (7, 6)
    host()
    used = {resource.RUSAGE_SELF: SimpleNamespace(ru_maxrss=5)}
    monkeypatch.setattr(resource, "getrusage", used.get)
    assert hardware.peak_memory_bytes() == 5 * 1024
    now = psutil.Process().memory_info().rss
    assert hardware.held_memory_bytes() == pytest.approx(now, rel=0.1)


def test_a_gpu_has_room_but_for_what_other_processes_hold(host):
    """Of 80 GB: 10 are taken, of which 2 and CUDA's own 0.9 are this process's."""
    host("H100", free=70 * 10**9, total=80 * 10**9, reserved=2 * 10**9)
    assert hardware.gpu_capacity_bytes() == 72_900_000_000
    host("H100", free=79 * 10**9, total=80 * 10**9, reserved=2 * 10**9)
    assert hardware.gpu_capacity_bytes() == 80 * 10**9


def test_the_hosts_free_memory_heeds_a_container_where_that_is_known(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9))
    for known, free in ((5, 5), (0, 0), (None, 9)):
        monkeypatch.setattr(hardware.host_memory, "free_host_bytes", lambda value=known: value)
        assert hardware.free_host_bytes() == free


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory. Compile with TORCH_USE_CUDA_DSA"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes"
        ),
    ],
)
def test_out_of_memory(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        KeyboardInterrupt(),
        ValueError("out of patience"),
    ],
)
def test_something_else(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("capability", "has"),
    [((7, 5), False), ((8, 0), False), ((8, 9), True), ((9, 0), True), ((10, 0), True),
     ((11, 0), False), ((12, 0), True)],
)  # fmt: skip
def test_fp8_is_refused_by_name_on_a_gpu_that_has_none(capability, has, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some Card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    settings = ModelSettings(id="a/b", quantisation="fp8")
    if has:
        assert resolve_dtype(settings) == "bfloat16"
        return
    with pytest.raises(HardwareError) as caught:
        resolve_dtype(settings)
    assert str(caught.value) == (
        "model.quantisation: fp8 needs a GPU of compute capability 8.9, 9.0, 10.0, 12.0, and Some Card "
        f"has {capability[0]}.{capability[1]}; set it to none or nf4"
    )


@pytest.mark.parametrize("kind", ["fp8", "nf4"])
def test_quantised_weights_are_refused_on_a_cpu(kind):
    with pytest.raises(
        HardwareError, match=f"quantisation: {kind} needs an NVIDIA GPU, and PyTorch"
    ):
        resolve_dtype(ModelSettings(id="a/b", quantisation=kind))
