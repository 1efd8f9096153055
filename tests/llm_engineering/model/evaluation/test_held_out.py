"""Tests of ``llm_engineering.model.evaluation.held_out``: each row's own loss, and the means."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import datasets
import pytest

from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.model.evaluation import held_out
from llm_engineering.model.evaluation.held_out import held_out_metrics
from llm_engineering.model.evaluation.inference import inference
from llm_engineering.peers import Alone
from llm_engineering.planning import held_out_batch
from llm_engineering.training_stack import import_unsloth


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    draw = random.Random(0)
    ids = [[draw.randrange(5, 500) for _ in range(length)] for length in (20, 7, 31, 12, 7)]
    labels = [[IGNORED] * (len(row) // 2) + row[len(row) // 2 :] for row in ids]
    return datasets.Dataset.from_dict({"input_ids": ids, "labels": labels})


def test_each_row_has_the_loss_that_transformers_gives_it_alone(
    model: Any, rows: datasets.Dataset
) -> None:
    import torch

    found = held_out_metrics(model, rows, batch_size=3, pad_id=0)

    for index, row in enumerate(rows):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        with torch.inference_mode():
            alone = model(input_ids=ids, labels=labels).loss.item()
        count = sum(label != IGNORED for label in row["labels"])
        assert found.row_tokens[index] == count
        assert found.row_losses[index] == pytest.approx(alone * count, rel=1e-5)


def test_the_mean_is_over_tokens_not_rows(model: Any, rows: datasets.Dataset) -> None:
    found = held_out_metrics(model, rows, batch_size=2, pad_id=0)

    assert found.loss == pytest.approx(sum(found.row_losses) / sum(found.row_tokens))
    assert found.tokens == sum(found.row_tokens)
    found.forget_rows()
    assert (found.row_losses, found.row_tokens, found.rows) == ([], [], 5)


def test_the_batch_size_changes_nothing(model: Any, rows: datasets.Dataset) -> None:
    one, all_ = (held_out_metrics(model, rows, batch_size=size, pad_id=0) for size in (1, 5))

    assert one.row_losses == pytest.approx(all_.row_losses, rel=1e-5)
    assert one.token_accuracy == all_.token_accuracy


class Told(Exception):
    """What a process tells the others."""


class OneOf(Alone):
    """One of several processes; ``others`` is what all of them told, once that is known."""

    def __init__(self, rank: int, ranks: int, everyones: list[Any] | None = None) -> None:
        self._rank, self._ranks, self._everyones = rank, ranks, everyones

    def rank(self) -> int:
        return self._rank

    def ranks(self) -> int:
        return self._ranks

    def all_values(self, value: Any) -> list[Any]:
        if self._everyones is None:
            raise Told(value)
        return self._everyones


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_processes_share_the_batches_and_all_have_the_figures_of_one(
    model: Any, rows: datasets.Dataset, ranks: int
) -> None:
    alone = held_out_metrics(model, rows, batch_size=2, pad_id=0)
    everyones, passes = [], []
    for rank in range(ranks):
        made: list[int] = []
        handle = model.register_forward_pre_hook(lambda *_, made=made: made.append(1))
        with pytest.raises(Told) as told:
            held_out_metrics(model, rows, batch_size=2, pad_id=0, peers=OneOf(rank, ranks))
        handle.remove()
        everyones.append(told.value.args[0])
        passes.append(len(made))
    # Equally many, since each may need the others' part of the weights: three batches by so many.
    assert passes == [-(-3 // ranks)] * ranks
    assert sorted(index for part, _ in everyones for index in part) == [0, 1, 2, 3, 4]
    shared = held_out_metrics(model, rows, batch_size=2, pad_id=0, peers=OneOf(0, ranks, everyones))
    assert shared == alone


def test_a_batch_of_long_rows_is_smaller_and_changes_nothing(
    model: Any, rows: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = held_out_metrics(model, rows, batch_size=5, pad_id=0)
    passes = []

    def noting(*args: Any, **kwargs: Any) -> Any:
        passes.append(tuple(kwargs["input_ids"].shape))
        return type(model).forward(model, *args, **kwargs)

    monkeypatch.setattr(model, "forward", noting)
    monkeypatch.setattr(held_out_batch, "MOST_TOKENS", 39)
    found = held_out_metrics(model, rows, batch_size=5, pad_id=0)
    assert passes == [(3, 12), (1, 20), (1, 31)]
    assert found.row_losses == pytest.approx(whole.row_losses, rel=1e-5)
    assert found.row_tokens == whole.row_tokens


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite"])
@pytest.mark.parametrize("adapted", [False, True])
def test_logits_by_pieces_give_the_same(family: str, adapted: bool) -> None:
    """On a CPU unsloth gives trl's fused head a way of its own; heads that cap and scale are among them."""
    import_unsloth()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    heads = {
        "gemma2": {"final_logit_softcapping": 2.0, "head_dim": 8},
        "granite": {"logits_scaling": 3.0},
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, hidden_size=16, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=64, **heads.get(family, {}),
    )  # fmt: skip
    base = AutoModelForCausalLM.from_config(config)
    base.get_output_embeddings().weight.data.normal_(0.0, 1.0)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"])) if adapted else base
    width, batch = (
        6,
        [([5, 6, 7, 8, 9, 10], [IGNORED, IGNORED, 7, 8, 9, 10]), ([3, 4, 5], [3, 4, 5])],
    )
    with torch.inference_mode():
        likeliest = int(model(torch.tensor([batch[1][0]])).logits[0, -2].argmax())
    batch.append(([3, 4, likeliest], [IGNORED, IGNORED, likeliest]))
    rows, labels = (
        torch.tensor([row[part] + [fill] * (width - len(row[part])) for row in batch])
        for part, fill in ((0, 0), (1, IGNORED))
    )
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch])
    with inference(model) as device:
        expected, hits = held_out._batch_losses(model, batch, 0, device)
        losses, correct = held_out._by_pieces(model, rows, mask, labels)

    assert losses.tolist() == pytest.approx([loss for loss, _ in expected], rel=1e-5)
    assert correct == hits > 0
    assert "forward" not in vars(base)
