"""What training on a CPU takes of the host's memory, held against what was measured."""

from __future__ import annotations

import re

import pytest

from llm_engineering.errors import HardwareError
from llm_engineering.planning.host_plan import (
    plan_host_memory,
    require_host_memory,
    require_room_for_kept_weights,
)

GIB = 1024**3
LLAMA = "Llama-3.1-8B"


@pytest.fixture
def on_cpu(work):
    """A workload in 32 bit; by default the embedded model's."""

    def make(model="SmolLM2-135M", row=512, **lora):
        return work(
            model, row=row, dtype="float32", batch_size=8, lora=lora,
            effective_batch=4, optimizer="adamw_torch",
        )  # fmt: skip

    return make


def test_what_the_embedded_model_took_lies_between(on_cpu):
    memory = plan_host_memory(on_cpu())
    assert 2.0e9 < memory.least < 2.43e9 < memory.most  # killed within 2.0e9 bytes
    assert memory.most < 3.0e9


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
