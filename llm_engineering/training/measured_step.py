"""A measured step before training: the plan is corrected by what the card really takes, and says so."""

from __future__ import annotations

import logging
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

from llm_engineering.distributed import world
from llm_engineering.distributed.trainer import distributed_arguments
from llm_engineering.model.finetuning.trainer import make_trainer
from llm_engineering.model.live import LiveModel
from llm_engineering.planning import hardware
from llm_engineering.planning.batch_plan import BatchPlan
from llm_engineering.planning.cards import GIB
from llm_engineering.planning.correction import MeasuredStep, correct
from llm_engineering.planning.memory import needs_mask
from llm_engineering.training.attempt import Attempt

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

_ADAPTER_BYTES = 4  # of a parameter: adapters are held in 32 bit
_MOST_MEASUREMENTS = 3
_STEPS = 2  # from the second on the optimizer's state is there
_MICRO_BATCHES = 2  # from the second on there are gradients beside its activations
# AdamW at a rate of zero leaves every parameter as it is, to the bit.
_TEACHES_NOTHING = {
    "learning_rate": 0.0,
    "weight_decay": 0.0,
    "max_steps": _STEPS,
    "warmup_steps": 0,
    "lr_scheduler_type": "constant",
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
}
# What accelerate puts on a model for autocast, once for each trainer.
_WRAPPED = ("forward", "_original_forward")


def settle_plan(attempt: Attempt, live_model: LiveModel, rows: datasets.Dataset) -> BatchPlan:
    """The plan to train by, after a measured step of the longest rows.

    If the step takes more than was estimated, a smaller plan may take over before training starts; if
    it takes less, a faster one, which is measured too. All ranks decide by the largest of their
    figures, and so alike. Only the estimate of a GPU's memory can be corrected: on a CPU, where
    the weights are shared, and where nothing was estimated, the plan stays.

    Args:
        attempt: With the plan to begin with, and the candidates to go over to.
        live_model: The model with its adapter; left as it was.
        rows: The train split.

    Raises:
        torch.OutOfMemoryError: The card is too small for a plan that was measured.
    """
    plan, candidates = attempt.plan, list(attempt.candidates)
    if not hardware.has_gpu() or plan.sharded or plan.estimate is None or not candidates:
        return plan
    capacity = min(world.all_values(hardware.gpu_capacity_bytes()))
    # Training took 25 % more than the step where packed rows need a mask (benchmarks/NOTES.md).
    family = str(live_model.model.config.get_text_config().model_type)
    may_lower = not needs_mask(family, attempt.settings.packing)
    for _ in range(_MOST_MEASUREMENTS):
        attempt.record.plan = plan  # what ran out of memory, if it does
        estimated = plan.estimate
        step = _largest(measure_step(attempt, live_model, rows, plan))
        candidates = correct(
            candidates,
            plan,
            step,
            _ADAPTER_BYTES * attempt.lora.trainable_parameters,
            may_lower=may_lower,
        )
        place = next(number for number, each in enumerate(candidates) if each.is_like(plan))
        fitting = [number for number, each in enumerate(candidates) if each.fits(capacity)]
        best = fitting[0] if fitting else place
        _say(plan, candidates[best], step, estimated.training if estimated else 0.0, may_lower)
        plan = candidates[best]
        if best >= place or plan.measured_bytes is not None:
            break
    return plan


def measure_step(
    attempt: Attempt, live_model: LiveModel, rows: datasets.Dataset, plan: BatchPlan
) -> MeasuredStep:
    """Make two optimizer steps of two micro-batches that teach nothing, by the training's own trainer.

    Args:
        attempt: What is trained.
        live_model: Model and tokenizer; its parameters stay as they are, to the bit.
        rows: The train split, of which the longest rows are taken.
        plan: How they go through the device.
    """
    model = live_model.model
    before = {name: vars(model)[name] for name in _WRAPPED if name in vars(model)}
    hardware.free_gpu_memory()
    held = hardware.held_memory_bytes()
    accumulated = min(_MICRO_BATCHES, plan.gradient_accumulation)
    few = plan.model_copy(update={"gradient_accumulation": accumulated})
    count = plan.micro_batch * accumulated * _STEPS * world.ranks()
    length = attempt.lora.model.max_seq_length if attempt.settings.packing else None
    try:
        # unsloth prints that a rate of zero is too low, and the banner of a training.
        with redirect_stdout(StringIO()):
            make_trainer(
                live_model, longest_rows(rows, count, length), attempt.lora, attempt.settings, few,
                attempt.seed, attempt.folder / "measured",
                {**distributed_arguments(), **_TEACHES_NOTHING},
            ).train()  # fmt: skip
        return MeasuredStep(held=held, peak=hardware.peak_memory_bytes())
    finally:
        model.zero_grad(set_to_none=True)
        for name in _WRAPPED:
            vars(model).pop(name, None)
        vars(model).update(before)
        hardware.free_gpu_memory()


def longest_rows(rows: datasets.Dataset, count: int, length: int | None) -> datasets.Dataset:
    """The longest rows, or as many as packing fills so many rows with; again and again where there are fewer.

    Args:
        rows: The train split.
        count: How many are wanted.
        length: Tokens of a row that is packed of several; None: rows are not packed. Where several
            share a row, attention may need a mask over a whole micro-batch, which one alone does not.
    """
    import pyarrow.compute

    table = rows.with_format("arrow")[:]
    lists = [
        name
        for name in table.column_names
        if str(table.schema.field(name).type)[:4] in ("list", "larg")
    ]
    tokens: Any = 0
    for name in lists:
        tokens = pyarrow.compute.add(tokens, pyarrow.compute.list_value_length(table[name]))
    if length is None:
        order = pyarrow.compute.sort_indices(tokens, sort_keys=[("", "descending")]).to_pylist()
        return rows.select([order[number % len(order)] for number in range(count)])
    sizes = pyarrow.compute.divide(tokens, len(lists)).to_pylist()
    left, chosen = count * length, list[int]()
    while left > 0:
        number = len(chosen) % len(sizes)
        chosen.append(number)
        left -= sizes[number]
    keep = sizes[chosen[-1]] + left  # the last one ends where the last row does

    def cut(row: dict[str, Any], place: int) -> dict[str, Any]:
        return {name: row[name][:keep] for name in lists} if place == len(chosen) - 1 else row

    return rows.select(chosen).map(cut, with_indices=True, keep_in_memory=True)


def _largest(step: MeasuredStep) -> MeasuredStep:
    steps = world.all_values(step)
    return MeasuredStep(held=max(s.held for s in steps), peak=max(s.peak for s in steps))


def _say(
    measured: BatchPlan, chosen: BatchPlan, step: MeasuredStep, estimated: float, may_lower: bool
) -> None:
    off = step.peak / estimated - 1
    outcome = "it stays" if chosen.is_like(measured) else f"going on with {chosen}"
    if off < 0 and not may_lower:
        outcome += ", and so does its estimate: packed rows of this family took more in training"
    logger.info(
        "a measured step, %s: %.1f GiB of GPU memory, %.1f %% %s than the %.1f GiB planned; %s",
        measured,
        step.peak / GIB,
        abs(100 * off),
        "more" if off > 0 else "less",
        estimated / GIB,
        outcome,
    )
