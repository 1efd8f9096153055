"""What a long job meets on a GPU: samples on the way, kills, other types of weights, no needless waits."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import traceback
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from llm_engineering.configuration.load import to_yaml
from llm_engineering.data.prepare import prepare_data
from llm_engineering.model import live
from llm_engineering.model.finetuning.inject import inject_lora, live_lora_model
from llm_engineering.model.finetuning.load import load_model
from llm_engineering.training.run import train

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


def checkpointing(model):
    return [bool(vars(part).get("gradient_checkpointing")) for part in model.modules()]


def test_samples_leave_the_training_as_it_was(on_gpu, tmp_path):
    """Activations are recomputed in every step, and the same is learned as without samples."""
    courses = []
    for kind, samples_every in [("plain", None), ("plain", 1), ("unsloth", 1)]:
        config = on_gpu(
            "sft",
            {
                "train.gradient_checkpointing": kind,
                "model.max_seq_length": 512,
                "model.dtype": "bfloat16",
                "train.max_steps": 4,
                "evaluate.samples_every": samples_every,
                "train.evaluate_every": 2 if samples_every else None,
            },
        )
        folder = tmp_path / f"{kind}-{samples_every}"
        dataset = prepare_data(config.data, config.model, objective="sft", folder=folder / "data")
        lora = inject_lora(load_model(config.model), config.lora)
        model = live_lora_model(lora).model
        seen, modes = [], []

        def note(record, model=model, seen=seen, modes=modes):
            seen.append(checkpointing(model))
            modes.append(model.training)

        _, record = train(
            lora, dataset, config.train, config.evaluate, seed=0, work=folder / "work", name="run",
            on_progress=note,
        )  # fmt: skip
        assert len(record.samples) == (4 if samples_every else 0)
        assert len(seen) >= 4
        assert any(seen[0]), "this plan recomputes"
        assert all(flags == seen[0] for flags in seen[:4])
        assert all(modes[:4])
        courses.append([point.loss for point in record.points])
        live.release()
    # Not to the digit: attention's backward pass adds up in an order of its own.
    for course in courses[1:]:
        assert course == pytest.approx(courses[0], rel=1e-3)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path[:0] = [{root!r}, {tests!r}]
    import torch
    from conftest import run_training
    torch.compiler.set_stance("force_eager")
    from llm_engineering.configuration.load import load_config
    config = load_config(Path({config!r}))
    def kill(record):
        if record.steps == 7:
            os.kill(os.getpid(), signal.SIGKILL)
    run_training(config, Path({folder!r}), on_progress=kill)
"""


def test_killed_it_resumes_on_the_same_trajectory(run, on_gpu, tmp_path):
    """With the 8-bit optimizer, whose state a checkpoint has to keep as it is."""
    config = on_gpu(
        "sft",
        {
            "model.dtype": "bfloat16",
            "train.optimizer": "adamw_8bit",
            "train.max_steps": 10,
            "train.checkpoint_every": 3,
            "train.keep_checkpoints": 1,
            "lora.r": 64,  # tensors of more than 4,096 numbers, which the 8-bit optimizer rounds
        },
    )
    whole = run(config, tmp_path / "whole")[-1]
    live.release()
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    script = KILLED.format(
        root=str(ROOT),
        tests=str(ROOT / "tests"),
        config=str(tmp_path / "config.yaml"),
        folder=str(tmp_path / "killed"),
    )
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    work = tmp_path / "killed" / "work"
    (work / "run").rename(work / "before")
    record = run(config, tmp_path / "killed", resume="required")[-1]
    assert record.resumed_from_step == 6
    assert record.train_tokens == whole.train_tokens
    assert [p.loss for p in record.points] == pytest.approx(
        [p.loss for p in whole.points], rel=1e-3
    )
    assert record.after.loss == pytest.approx(whole.after.loss, rel=1e-3)


PAIRS = {
    "utils.py": 2,  # trl/trainer/utils.py:1639 and 1642: which positions have a label, asked twice
    "fused_linear.py": 1,  # unsloth_zoo/fused_losses/fused_linear.py:1238: the same once more
    "graph.py": 2,  # torch/autograd/graph.py: in the backward pass of the first two
}
WAITS = {
    "sft": {
        "packing.py": 1,  # unsloth/utils/packing.py:1776: the documents' lengths, which attention needs
        "fused_linear.py": 1,
    },
    "dpo": PAIRS,
    "orpo": PAIRS,
    "kto": {"utils.py": 4, "fused_linear.py": 2, "graph.py": 2},  # two passes, one backward
}
"""Waits for the device in a micro-batch, by the file that asks it something."""


@pytest.mark.parametrize("objective", ["sft", "dpo", "orpo", "kto"])
def test_between_logged_steps_the_device_is_not_waited_for(
    run, on_gpu, tmp_path, capsys, objective
):
    """Those of start, end and held-out rows do not grow with the steps; docs/training.md has the rest."""
    waits = {}
    for steps in (4, 12):
        config = on_gpu(
            objective,
            {
                "model.dtype": "bfloat16",
                "train.max_steps": steps,
                "train.micro_batch": 2,
                "train.gradient_accumulation": 4,
                "train.log_every": 1000,
                "train.checkpoint_every": None,
            },
        )
        with counted_waits() as waits[steps]:
            run(config, tmp_path / str(steps))
        live.release()
    assert "padding-free batching off" not in capsys.readouterr().out
    more = waits[12] - waits[4]
    where = "\n".join(f"{count} x {place}" for place, count in more.most_common())
    print(f"{objective}: {more.total() / 8:.2f} waits a step of 4 micro-batches\n{where}")
    found = Counter()
    for place, count in more.items():
        found[place.partition(":")[0]] += count / 8 / 4
    assert {place: count for place, count in found.items() if count >= 0.5} == WAITS[objective]
    assert sum(count for count in found.values() if count < 0.5) * 4 <= 1.0, (
        "an optimizer step's own"
    )


@contextmanager
def counted_waits():
    """Counts by the calls that led to it how often the device is waited for."""
    import torch

    waits = Counter()

    def count(message, *_, **__):
        if "synchroniz" in str(message):
            calls = traceback.extract_stack()[:-2]  # without this function and warnings.py
            waits[" <- ".join(f"{Path(c.filename).name}:{c.lineno}" for c in calls[:-7:-1])] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
