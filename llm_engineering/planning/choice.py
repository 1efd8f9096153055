"""The one choice of a plan: whoever asks, for whatever card, gets the plans that fit it."""

from __future__ import annotations

from llm_engineering.errors import HardwareError
from llm_engineering.planning.batch_plan import BatchPlan, gpu_plans
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.memory_table import explain_refusal
from llm_engineering.planning.sharded_plan import (
    explain_no_sharing,
    host_bytes,
    sharded_plans,
)
from llm_engineering.planning.workload import Workload


def choose_plans(
    work: Workload, ranks: int, *, card: str, capacity: float, free_host_bytes: float | None = None
) -> list[BatchPlan]:
    """The plans that fit a card, fastest first; weights are shared only where no card holds them.

    A dry run, a run, a SageMaker launch and, through the run that starts it, a rank all choose here.

    Args:
        work: One rank's share of the training.
        ranks: Ranks with such a card each.
        card: Its name.
        capacity: Its bytes, as a program can have them.
        free_host_bytes: Memory of each host that shared weights can go through; None: not known.

    Raises:
        HardwareError: None fits; shows what takes how much, and what would fit.
    """
    plans = [plan for plan in gpu_plans(work) if plan.fits(capacity)]
    if plans:
        return plans
    plans = [plan for plan in sharded_plans(work, ranks) if plan.fits(capacity)]
    if not plans:
        raise HardwareError(explain_refusal(work, card, capacity) + explain_no_sharing(work, ranks))
    need = host_bytes(work)
    if free_host_bytes is not None and need > free_host_bytes:
        raise HardwareError(
            f"the GPUs share the weights (FSDP), which each host first reads into its own memory: "
            f"that takes {need / GIB:.1f} GiB, and {free_host_bytes / GIB:.1f} GiB are free. Use a "
            "host with more memory, or model.quantisation: nf4"
        )
    return plans
