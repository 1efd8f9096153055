"""What training on a CPU takes of the host's memory, held against what was measured."""

from __future__ import annotations

import re

import pytest

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.errors import HardwareError
from llm_engineering.planning.host_plan import (
    HostMemory,
    plan_host_memory,
    require_host_memory,
    require_room_for_kept_weights,
)

GIB = 1024**3
LLAMA = "Llama-3.1-8B"


@pytest.fixture
def on_cpu(work):
    """A workload in 32 bit; by default the embedded model's."""

    def make(model="SmolLM2-135M", row=512, micro_batch="auto", **lora):
        return work(
            model, row=row, dtype="float32", batch_size=8, lora=lora,
            effective_batch=4, micro_batch=micro_batch, optimizer="adamw_torch",
        )  # fmt: skip

    return make


def test_what_the_embedded_model_took_lies_between(on_cpu):
    memory = plan_host_memory(on_cpu())
    assert 2.0e9 < memory.least < 2.43e9 < memory.most  # killed within 2.0e9 bytes
    assert memory.most < 3.0e9


def test_it_is_that_of_the_micro_batch_that_a_cpu_takes_first(on_cpu):
    assert plan_host_memory(on_cpu()) == plan_host_memory(on_cpu(micro_batch=2))


def test_the_proof_of_the_exports_takes_a_second_process(on_cpu):
    work = on_cpu(LLAMA)
    unproven = work.model_copy(update={"evaluate": EvaluateSettings(parity_rows=0, batch_size=8)})
    less = plan_host_memory(work).least - plan_host_memory(unproven).least
    assert less == pytest.approx(0.7e9, rel=1e-3)  # Python with its packages


def test_it_is_told_in_gib():
    told = HostMemory(weights=GIB, least=2 * GIB, most=3.5 * GIB)
    assert str(told).startswith("2.0 to 3.5 GiB")


def test_weights_that_cannot_fit_are_refused_by_what_they_take(on_cpu):
    with pytest.raises(HardwareError) as error:
        require_host_memory(on_cpu(LLAMA), 16 * GIB)
    told = re.search(r"at least ([\d.]+) GiB .*base weights in float32: ([\d.]+) GiB.*16.0 GiB are free",
                     str(error.value))  # fmt: skip
    assert told is not None
    assert float(told[2]) == pytest.approx(8.03e9 * 4 / GIB, abs=0.1)
    assert float(told[1]) > float(told[2])


def test_what_fits_with_short_rows_alone_is_warned_of(on_cpu):
    memory = plan_host_memory(on_cpu())
    between = int((memory.least + memory.most) / 2)
    warning = require_host_memory(on_cpu(), between)
    assert warning is not None
    assert "model.max_seq_length (512 tokens)" in warning
    assert f"may need {memory.most / GIB:.1f} GiB" in warning
    assert f"{between / GIB:.1f} GiB are free" in warning
    assert require_host_memory(on_cpu(), memory.least) is not None
    assert require_host_memory(on_cpu(), memory.most) is None
    assert require_host_memory(on_cpu(row=16), between) is None
    assert require_host_memory(on_cpu(), int(memory.most) + 1) is None


def test_pissa_keeps_the_adapted_weights_in_host_memory_too(on_cpu):
    plain, kept = on_cpu(LLAMA), on_cpu(LLAMA, init="pissa")
    weights = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336) * 4
    for part in ("least", "most"):
        more = getattr(plan_host_memory(kept), part) - getattr(plan_host_memory(plain), part)
        assert more == pytest.approx(weights)


def test_each_process_of_a_host_keeps_them(on_cpu):
    kept = on_cpu(LLAMA, init="pissa")  # 26 GiB in 32 bit
    require_room_for_kept_weights(on_cpu(LLAMA), 8, 0)
    require_room_for_kept_weights(kept, 8, 210 * GIB)
    with pytest.raises(
        HardwareError, match=r"pissa keeps .*: 208.0 GiB for 8 processes, and 200.0"
    ):
        require_room_for_kept_weights(kept, 8, 200 * GIB)
