"""Tests of ``llm_engineering.model.evaluation.generic``: the shipped text, and the loss on it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from llm_engineering.model.evaluation.generic import GenericLoss, generic_metrics, read_passages
from llm_engineering.model.evaluation.held_out import HeldOutMetrics


def metrics(loss: float) -> HeldOutMetrics:
    return HeldOutMetrics(loss=loss, token_accuracy=0.5, tokens=10, rows=1)


def test_sixty_different_paragraphs_ship() -> None:
    passages = read_passages(1000)

    assert len(passages) == len(set(passages)) == 60
    assert all(30 < len(passage.split()) < 70 and "\n" not in passage for passage in passages)
    assert read_passages(3) == passages[:3]


def test_an_increase_of_the_loss_is_a_positive_change() -> None:
    loss = GenericLoss(before=metrics(2.0), after=metrics(2.5))

    assert loss.figures == {
        "generic_loss_before": 2.0,
        "generic_loss_after": 2.5,
        "generic_loss_change": pytest.approx(0.25),
    }


def test_every_token_after_the_first_counts(tiny_model: Path) -> None:
    """A random model knows nothing: its loss is that of guessing among the vocabulary."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    found = generic_metrics(model, tokenizer, 2, batch_size=2, max_length=50)

    assert (found.rows, found.tokens) == (2, 2 * 49)
    assert found.loss == pytest.approx(math.log(len(tokenizer)), rel=0.05)
    assert found.row_losses == []
