"""One choice of a plan, whoever asks."""

import pytest

from llm_engineering.configuration.evaluate import EvaluateSettings
from llm_engineering.configuration.lora import LoraSettings
from llm_engineering.configuration.train import TrainSettings
from llm_engineering.errors import HardwareError
from llm_engineering.planning.batch_plan import gpu_plans
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.choice import choose_plans
from llm_engineering.planning.shape import ModelShape
from llm_engineering.planning.sharded_plan import host_bytes, sharded_plans
from llm_engineering.planning.workload import Workload

LLAMA_8B = ModelShape(
    hidden=4096, inner=14336, layers=32, queries=4096, keys=1024, vocabulary=128256, tied=False
)  # fmt: skip


@pytest.fixture
def work():
    return Workload(
        shape=LLAMA_8B,
        dtype="bfloat16",
        quantisation="none",
        lora=LoraSettings(),
        train=TrainSettings(effective_batch=8),
        evaluate=EvaluateSettings(),
        longest_row=2048,
        mean_row=2048,
    )


def test_what_fits_comes_fastest_first(work):
    chosen = choose_plans(work, 1, card="H100", capacity=79.2 * GIB)
    fitting = [plan for plan in gpu_plans(work) if plan.fits(79.2 * GIB)]
    assert chosen == fitting
    assert not chosen[0].sharded


def test_weights_are_shared_only_where_no_card_holds_them(work):
    capacity = 16 * GIB
    with pytest.raises(HardwareError, match=r"does not fit T4 \(16\.0 GiB\)"):
        choose_plans(work, 1, card="T4", capacity=capacity)
    chosen = choose_plans(work, 8, card="T4", capacity=capacity)
    assert chosen == [plan for plan in sharded_plans(work, 8) if plan.fits(capacity)]
    assert all(plan.sharded for plan in chosen)


def test_the_hosts_memory_counts_where_it_is_known(work):
    need = host_bytes(work)
    known = {"card": "T4", "capacity": 16 * GIB}
    assert choose_plans(work, 8, **known, free_host_bytes=need + 1)
    with pytest.raises(HardwareError, match=r"takes 16\.0 GiB, and 15\.9 GiB are free"):
        choose_plans(work, 8, **known, free_host_bytes=need - 0.1 * GIB)
