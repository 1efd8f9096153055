"""One loss an objective on a GPU: by unsloth's kernels, however a step is split or its rows are packed."""

from __future__ import annotations

import pytest

from llm_engineering.model import live
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.finetuning.adapter_folder import live_trained_model

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

OBJECTIVES = ["sft", "dpo", "orpo", "kto"]
SPLITS = [(2, 4), (4, 2), (8, 1)]
ROWS = 7  # all of them in every step of 8, whose last micro-batch is a smaller one
CLOSE = 1e-4
"""Of sums in 32 bit by kernels that choose their order by the shapes; 16 bit would be 1e-2 off."""


def rows_of(config, rows):
    return {"data.sources": [{"source": config.data.sources[0].source, "max_rows": rows}]}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_loss_is_trained_in_every_split_and_measured(run, on_gpu, tmp_path, objective):
    found = []
    for micro_batch, accumulation in SPLITS:
        config = on_gpu(
            objective,
            {
                **rows_of(on_gpu(objective), ROWS),
                "train.max_steps": 5,
                "train.micro_batch": micro_batch,
                "train.gradient_accumulation": accumulation,
            },
        )
        lora, dataset, adapter, record = run(config, tmp_path / str(micro_batch))
        found.append(record)
    trained = live_trained_model(lora, adapter)
    with trained.model.disable_adapter():
        before = objective_metrics(
            trained.model,
            dataset.split("train"),
            objective=objective,
            beta=record.beta,
            reference=None,
            batch_size=4,
            pad_id=trained.tokenizer.pad_token_id,
        )
    live.release()
    first, *others = found
    assert first.points[0].loss == pytest.approx(before.loss, abs=CLOSE)
    for other in others:
        assert [p.loss for p in other.points] == pytest.approx(
            [p.loss for p in first.points], abs=CLOSE
        )
        assert other.after.loss == pytest.approx(first.after.loss, abs=CLOSE)
        assert other.train_tokens == first.train_tokens


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_the_better_answers_are_preferred_after_training(run, on_gpu, tmp_path, objective):
    config = on_gpu(objective, {"model.dtype": "bfloat16", "train.max_steps": 12})
    record = run(config, tmp_path)[-1]
    assert record.after.rewards.margin > record.before.rewards.margin + 0.003
    assert record.after.rewards.accuracy > 0.7
    assert record.after.loss < record.before.loss


def test_packed_rows_do_not_see_each_other(run, on_gpu, tmp_path):
    """All rows in every step, apart or packed: each row's own loss, so the course is the same."""
    _, dataset, _, apart = run(all_rows(on_gpu), tmp_path / "apart")
    tokens = sum(map(len, dataset.split("train")["input_ids"]))
    live.release()
    packed = run(all_rows(on_gpu, packed_into=-(-tokens // 512) + 1), tmp_path / "packed")[-1]
    assert packed.train_tokens == apart.train_tokens
    losses = [p.loss for p in apart.points]
    assert [p.loss for p in packed.points] == pytest.approx(losses, rel=0.01)
    assert losses[-1] < losses[0] - 0.5, "it learns, so that attention tells"


@pytest.mark.compiled
def test_compiled_layers_learn_the_same(run, on_gpu, tmp_path):
    """As a user trains: packed, whole layers compiled; the only test that waits for the compiler."""
    import torch

    with torch.compiler.set_stance("force_eager"):
        plain = run(all_rows(on_gpu, packed_into=8), tmp_path / "plain")[-1]
        live.release()
    compiled = run(all_rows(on_gpu, packed_into=8), tmp_path / "compiled")[-1]
    assert [p.loss for p in compiled.points] == pytest.approx(
        [p.loss for p in plain.points], rel=0.01
    )


def all_rows(on_gpu, packed_into=None):
    """Sixteen rows, all in each step: apart, or in at most so many packed rows."""
    split = (16, 1) if packed_into is None else (1, packed_into)
    return on_gpu(
        "sft",
        {
            **rows_of(on_gpu(), 16),
            "model.dtype": "bfloat16",
            "model.max_seq_length": 512,
            "train.packing": packed_into is not None,
            "train.micro_batch": split[0],
            "train.gradient_accumulation": split[1],
            "train.max_steps": 20,
        },
    )
