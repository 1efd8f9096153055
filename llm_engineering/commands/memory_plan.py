"""What ``--dry-run`` says of memory: the plan for this host or the job's instances, and for others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_engineering.configuration import FinetuningConfig
from llm_engineering.errors import HardwareError, LaunchError, LoraError, ModelError
from llm_engineering.training_stack import has_pytorch

if TYPE_CHECKING:
    from llm_engineering.planning.shape import TrainedShape


def memory_plan(config: FinetuningConfig, target: str, gpus: str = "auto") -> list[str]:
    """The memory that training needs where it will run, worked out without loading a weight."""
    try:
        from llm_engineering.model.finetuning.trained_shape import known_shape

        shape = known_shape(config.model, config.lora)
    except (ModelError, LoraError) as reason:
        return [f"# memory: not planned ({reason})"]
    if shape is None:
        return [
            f"# memory: not planned here (it takes PyTorch to build {config.model.id}'s modules, and "
            "this host has none: `make setup`)"
        ]

    from llm_engineering.planning.memory_table import card_table
    from llm_engineering.planning.workload import configured_workload

    dtype = "bfloat16" if config.model.dtype == "auto" else config.model.dtype
    work = configured_workload(config, shape, dtype)
    rows = f"{work.train.rows_in_step} rows a step, of at most {work.longest_row} tokens"
    lines = [
        f"# memory ({rows})",
        f"  {shape.model}; {shape.adapter.parameters:,} of them in the adapter",
    ]
    if target == "sagemaker":
        lines += _on_instances(config, shape)
    else:
        lines += _on_this_host(config, shape, gpus)
    return [*lines, "  on these cards, with a margin of 8 %:", *card_table(work)]


def _on_this_host(config: FinetuningConfig, shape: TrainedShape, gpus: str) -> list[str]:
    from llm_engineering.planning.batch_plan import unestimated_plans

    if not has_pytorch():
        return ["  on this host: PyTorch is not installed yet"]
    from llm_engineering.distributed.placement import Placement
    from llm_engineering.distributed.share import choose_ranks, share_of_step
    from llm_engineering.planning import hardware
    from llm_engineering.planning.host_plan import plan_host_memory
    from llm_engineering.planning.workload import configured_workload

    placement = Placement(ranks_per_host=choose_ranks(gpus))
    config = config.model_copy(update={"train": share_of_step(config.train, placement.ranks)})
    if not hardware.has_gpu():
        first = unestimated_plans(config.train)[0]
        memory = plan_host_memory(configured_workload(config, shape, _here(config)))
        return [f"  on this host, without a GPU: {first}{placement.on_each}; {memory}"]
    from llm_engineering.planning.batch_plan import what_keeps_it_waiting
    from llm_engineering.planning.cards import GIB
    from llm_engineering.planning.choice import choose_plans
    from llm_engineering.planning.memory_table import plan_table
    from llm_engineering.planning.sharded_plan import explain_sharing

    work = configured_workload(config, shape, _here(config))
    card, capacity = hardware.device_name(), hardware.gpu_capacity_bytes()
    ranks = placement.ranks
    try:
        plan = choose_plans(
            work,
            ranks,
            card=card,
            capacity=capacity,
            free_host_bytes=hardware.free_host_bytes(),
        )[0]
    except HardwareError as reason:
        return [str(reason)]
    return [
        *([f"  {explain_sharing(work, ranks, capacity)}"] if plan.sharded else []),
        f"  on {card} ({capacity / GIB:.1f} GiB): {plan}{placement.on_each}",
        *plan_table(work, plan),
        *([f"  {waiting}"] if (waiting := what_keeps_it_waiting(work, plan)) else []),
    ]


def _here(config: FinetuningConfig) -> str:
    from llm_engineering.planning import hardware

    return hardware.resolve_dtype(config.model)


def _on_instances(config: FinetuningConfig, shape: TrainedShape) -> list[str]:
    from llm_engineering.planning.workload import configured_workload
    from llm_engineering.sagemaker.checks import check_memory, job_dtype
    from llm_engineering.sagemaker.launch_order import sagemaker_settings

    settings = sagemaker_settings(config)
    work = configured_workload(config, shape, job_dtype(config, settings))
    try:
        return [f"  {line}" for line in check_memory(work, settings)]
    except LaunchError as reason:
        return [str(reason)]
