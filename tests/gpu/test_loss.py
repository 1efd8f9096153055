"""One loss an objective on a GPU: by unsloth's kernels, however a step is split or its rows are packed."""

from __future__ import annotations

import pytest

from llm_engineering.model import live
from llm_engineering.model.evaluation.preference import objective_metrics
from llm_engineering.model.finetuning.adapter_folder import live_trained_model

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

OBJECTIVES = ["sft", "dpo", "orpo", "kto"]
SPLITS = [(2, 4), (4, 2), (8, 1)]
CLOSE = 1e-4
"""Of sums in 32 bit by kernels that choose their order by the shapes; 16 bit would be 1e-2 off."""


def rows_of(config, rows):
    return {"data.sources": [{"source": config.data.sources[0].source, "max_rows": rows}]}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_is_the_same_however_a_step_is_split(run, on_gpu, tmp_path, objective):
    found = []
    for micro_batch, accumulation in SPLITS:
        config = on_gpu(
            objective,
            {
                **rows_of(on_gpu(objective), 23),
                "train.max_steps": 5,
                "train.micro_batch": micro_batch,
                "train.gradient_accumulation": accumulation,
            },
        )
        found.append(run(config, tmp_path / str(micro_batch))[-1])
        live.release()
    first, *others = found
    for other in others:
        assert [p.loss for p in other.points] == pytest.approx(
            [p.loss for p in first.points], abs=CLOSE
        )
        assert other.after.loss == pytest.approx(first.after.loss, abs=CLOSE)
        assert other.train_tokens == first.train_tokens


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_trained_is_what_is_measured_in_32_bit_too(run, on_gpu, tmp_path, objective):
    config = on_gpu(
        objective,
        {
            **rows_of(on_gpu(objective), 4),
            "train.max_steps": 1,
            "train.micro_batch": 2,
            "train.gradient_accumulation": 4,
        },
    )
    lora, dataset, adapter, record = run(config, tmp_path)
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
    assert record.points[0].loss == pytest.approx(before.loss, abs=CLOSE)


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_the_better_answers_are_preferred_after_training(run, on_gpu, tmp_path, objective):
    config = on_gpu(objective, {"model.dtype": "bfloat16", "train.max_steps": 12})
    record = run(config, tmp_path)[-1]
    assert record.after.rewards.margin > record.before.rewards.margin + 0.003
    assert record.after.rewards.accuracy > 0.7
    assert record.after.loss < record.before.loss


@pytest.mark.compiled
def test_packed_rows_do_not_see_each_other(run, on_gpu, tmp_path):
    """All rows in every step, apart or packed: each row's own loss, so the course is the same."""
    rows = {
        **rows_of(on_gpu(), 16),
        "model.dtype": "bfloat16",
        "model.max_seq_length": 512,
        "train.max_steps": 20,
    }
    apart = on_gpu("sft", {**rows, "train.micro_batch": 16, "train.gradient_accumulation": 1})
    _, dataset, _, one = run(apart, tmp_path / "apart")
    tokens = sum(map(len, dataset.split("train")["input_ids"]))
    live.release()
    packs = -(-tokens // 512)
    together = on_gpu(
        "sft",
        {
            **rows,
            "train.packing": True,
            "train.micro_batch": 1,
            "train.gradient_accumulation": packs + 1,  # more than there are: all of them in a step
        },
    )
    packed = run(together, tmp_path / "packed")[-1]
    assert packed.train_tokens == one.train_tokens
    assert [p.loss for p in packed.points] == pytest.approx([p.loss for p in one.points], rel=0.01)
    assert one.points[-1].loss < one.points[0].loss - 0.5, "it learns, so that attention tells"
