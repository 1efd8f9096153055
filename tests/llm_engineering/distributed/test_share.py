"""How a step's rows are shared by the ranks, and what is said where they cannot be."""

import pytest

from llm_engineering.configuration.train import TrainSettings
from llm_engineering.distributed.share import choose_ranks, share_of_step
from llm_engineering.errors import ConfigError, HardwareError


@pytest.mark.parametrize(
    ("settings", "ranks"),
    [
        ({}, 4),
        ({"effective_batch": 48}, 3),
        ({"micro_batch": 2, "effective_batch": 16}, 8),
        ({"micro_batch": 2, "gradient_accumulation": 8}, 4),
        ({"gradient_accumulation": 8}, 2),
    ],
)
def test_the_ranks_together_make_the_whole_step(settings, ranks):
    train = TrainSettings(**settings)
    share = share_of_step(train, ranks)
    assert share.rows_in_step * ranks == train.rows_in_step
    assert share.micro_batch == train.micro_batch
    if train.gradient_accumulation:
        assert share.gradient_accumulation * ranks == train.gradient_accumulation
    TrainSettings.model_validate(share.model_dump())  # as valid as what a user writes


@pytest.mark.parametrize(
    ("settings", "ranks", "said"),
    [
        ({}, 3, r"effective_batch: 16 .* by 3 GPUs .* 15 and 18, or 2 GPUs"),
        ({"micro_batch": 4}, 8, r"micro-batches of 4; the nearest is 32, or 4 GPUs"),
        ({"gradient_accumulation": 4}, 3, r"gradient_accumulation: 4 .* are 3 and 6"),
    ],
)
def test_an_impossible_share_names_what_is_possible(settings, ranks, said):
    with pytest.raises(ConfigError, match=said):
        share_of_step(TrainSettings(**settings), ranks)


def visible_gpus(monkeypatch, count):
    monkeypatch.setattr("torch.cuda.is_available", lambda: count > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)


@pytest.mark.parametrize(("gpus", "visible", "ranks"), [
    ("auto", 0, 1), ("auto", 4, 4), ("2", 4, 2), ("1", 4, 1), ("2", 0, 2),
])  # fmt: skip
def test_the_number_of_ranks(monkeypatch, gpus, visible, ranks):
    visible_gpus(monkeypatch, visible)
    assert choose_ranks(gpus) == ranks


def test_more_gpus_than_there_are(monkeypatch):
    visible_gpus(monkeypatch, 2)
    with pytest.raises(HardwareError, match=r"--gpus 3: PyTorch sees 2 GPUs here"):
        choose_ranks("3")
    for wrong in ("0", "-1", "many"):
        with pytest.raises(ConfigError, match="--gpus"):
            choose_ranks(wrong)
