"""What a long job meets on a GPU: samples on the way, kills, other types of weights, no needless waits."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
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


@pytest.mark.compiled
@pytest.mark.parametrize("kind", ["plain", "unsloth"])
def test_samples_leave_the_training_as_it_was(on_gpu, tmp_path, kind):
    """Activations are recomputed in every step, and the same is learned as without samples."""
    courses = []
    for samples_every in (None, 1):
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
        folder = tmp_path / str(samples_every)
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
    assert courses[0] == pytest.approx(courses[1], rel=1e-3)


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


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_8bit"])
def test_killed_it_resumes_on_the_same_trajectory(run, on_gpu, tmp_path, optimizer):
    config = on_gpu(
        "sft",
        {
            "model.dtype": "bfloat16",
            "train.optimizer": optimizer,
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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_every_type_of_weights_learns(run, on_gpu, tmp_path, dtype):
    config = on_gpu("sft", {"model.dtype": dtype, "train.max_steps": 12})
    lora, *_, record = run(config, tmp_path)
    assert lora.model.dtype == dtype
    assert all(math.isfinite(point.loss) for point in record.points)
    assert record.after.loss < record.before.loss - 0.1


def test_between_logged_steps_the_device_is_not_waited_for(run, on_gpu, tmp_path):
    """Far fewer waits than forward passes: those of start, end and held-out rows do not grow."""
    import torch

    waits = {}
    for steps in (6, 18):
        config = on_gpu(
            "sft",
            {
                "model.dtype": "bfloat16",
                "train.max_steps": steps,
                "train.micro_batch": 2,
                "train.gradient_accumulation": 4,
                "train.log_every": 1000,
                "train.checkpoint_every": None,
            },
        )
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run(config, tmp_path / str(steps))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        live.release()
        waits[steps] = Counter(
            f"{one.filename}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)
        )
    more = waits[18] - waits[6]
    a_step = more.total() / 12
    assert a_step <= 1.0, f"{a_step:.1f} waits a step of 4 forward passes: {more.most_common()}"
