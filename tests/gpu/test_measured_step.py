"""On a card: a step is measured before training, and the training that follows takes what it took."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def test_a_step_is_measured_and_training_takes_as_much(on_gpu, run, tmp_path, caplog):
    caplog.set_level("INFO")
    config = on_gpu(
        overrides={
            "train.micro_batch": "auto", "train.gradient_accumulation": None,
            "train.effective_batch": 8,
        }
    )  # fmt: skip
    _, _, _, record = run(config, tmp_path)

    assert "a measured step, micro-batch " in caplog.text
    assert record.plan.measured_bytes is not None
    assert record.plan.off_by is not None
    assert record.peak_memory_bytes == pytest.approx(record.plan.measured_bytes, rel=0.25)
