"""Which weights a device can hold, and which errors say that its memory is used up."""

import pytest
import torch

from llm_engineering.configuration.model import ModelSettings
from llm_engineering.errors import HardwareError
from llm_engineering.planning.hardware import is_out_of_memory, resolve_dtype


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
