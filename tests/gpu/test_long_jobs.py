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
    from conftest import run_training
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


@pytest.mark.parametrize("objective", ["sft", "dpo", "orpo", "kto"])
def test_between_logged_steps_the_device_is_not_waited_for(run, on_gpu, tmp_path, objective):
    """Far fewer waits than forward passes: those of start, end and held-out rows do not grow."""
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
    more = waits[12] - waits[4]
    a_step = more.total() / 8
    where = "\n".join(f"{count} x {place}" for place, count in more.most_common())
    print(f"{objective}: {a_step:.2f} waits a step of 4 forward passes\n{where}")
    assert a_step <= 1.0, f"{a_step:.2f} waits a step of 4 forward passes:\n{where}"


@contextmanager
def counted_waits():
    """Counts by the calls that led to it how often the device is waited for."""
    import torch

    waits = Counter()

    def count(message, *_, **__):
        if "synchroniz" in str(message):
            calls = traceback.extract_stack()[:-1]
            waits[" <- ".join(f"{Path(c.filename).name}:{c.lineno}" for c in calls[:-7:-1])] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = count
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
