"""The trainer of preferences: it waits for the device no more than trl's fused head does."""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llm_engineering.model import live

pytestmark = pytest.mark.slow

A_PASS = {
    "trl/trainer/utils.py: aten.index.Tensor": 2,
    "transformers/masking_utils.py: aten._local_scalar_dense.default": 1,
}
"""trl's fused head asks twice how many positions have a label (``hidden_states[mask]`` and
``labels[mask]`` in ``add_fused_lm_head``); transformers' forward pass, which unsloth's takes the place of
on a GPU, whether a row holds several documents."""
PASSES = {"dpo": 1, "orpo": 1, "kto": 2}
"""kto's reference point takes a pass of its own."""
STEPS, ACCUMULATION = 2, 3

HOT = ("get_batch_samples", "training_step")  # of transformers' trainer
OWN = (__file__, str(Path(torch.__file__).parent))
PLACE = re.compile(r"[^/]+(/trainer)?/[^/]+$")
LOADING = "accelerate/data_loader.py"  # rows that are on the host yet
READ = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
)


class Waits(TorchDispatchMode):
    """Counts the operations for which a GPU would be waited for: those whose result the host reads."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = args[1] if func is torch.ops.aten.index.Tensor else []
        if func in READ or any(mask is not None and mask.dtype == torch.bool for mask in masks):
            calls = [frame.f_code for frame in frames()]
            loading = any(call.co_filename.endswith(LOADING) for call in calls)
            if any(call.co_name in HOT for call in calls) and not loading:
                asks = next(call for call in calls if not call.co_filename.startswith(OWN))
                place = PLACE.search(asks.co_filename)[0]
                self.found[f"{place}: {func}"] += 1
        return func(*args, **(kwargs or {}))


def frames():
    frame = sys._getframe(2)
    while frame:
        yield frame
        frame = frame.f_back


@pytest.mark.parametrize("objective", PASSES)
def test_between_logged_steps_nothing_else_is_waited_for(
    run, preference_config, tmp_path, objective
):
    config = preference_config(
        objective,
        {
            "train.max_steps": STEPS,
            "train.micro_batch": 2,
            "train.gradient_accumulation": ACCUMULATION,
            "train.log_every": 1000,
            "train.checkpoint_every": None,
            "evaluate.samples": 0,
        },
    )
    with Waits() as waits:
        run(config, tmp_path)
    live.release()
    passes = STEPS * ACCUMULATION * PASSES[objective]
    assert waits.found == {place: count * passes for place, count in A_PASS.items()}
