"""One choice of a plan, whoever asks."""

import pytest

from llm_engineering.errors import HardwareError
from llm_engineering.planning.batch_plan import gpu_plans
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.choice import choose_plans
from llm_engineering.planning.sharded_plan import host_bytes, sharded_plans


@pytest.fixture
def llama(work):
    return work(effective_batch=8, optimizer="adamw_torch")


def test_what_fits_comes_fastest_first(llama):
    chosen = choose_plans(llama, 1, card="H100", capacity=79.2 * GIB)
    fitting = [plan for plan in gpu_plans(llama) if plan.fits(79.2 * GIB)]
    assert chosen == fitting
    assert not chosen[0].sharded


def test_weights_are_shared_only_where_no_card_holds_them(llama):
    capacity = 16 * GIB
    with pytest.raises(HardwareError, match=r"does not fit T4 \(16\.0 GiB\)"):
        choose_plans(llama, 1, card="T4", capacity=capacity)
    chosen = choose_plans(llama, 8, card="T4", capacity=capacity)
    assert chosen == [plan for plan in sharded_plans(llama, 8) if plan.fits(capacity)]
    assert all(plan.sharded for plan in chosen)


def test_the_hosts_memory_counts_where_it_is_known(llama):
    need = host_bytes(llama)
    known = {"card": "T4", "capacity": 16 * GIB}
    assert choose_plans(llama, 8, **known, free_host_bytes=need + 1)
    with pytest.raises(HardwareError, match=r"takes 16\.0 GiB, and 15\.9 GiB are free"):
        choose_plans(llama, 8, **known, free_host_bytes=need - 0.1 * GIB)
