"""Held-out loss and rewards of a model that learns from preferences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.model.evaluation.held_out import HeldOutMetrics, held_out_metrics
from llm_engineering.model.evaluation.rewards import Rewards

if TYPE_CHECKING:
    import datasets

LogProbabilities = Mapping[str, Sequence[float]]


def objective_metrics(
    model: Any,
    rows: datasets.Dataset,
    *,
    objective: str,
    beta: float,
    reference: LogProbabilities | None,
    batch_size: int,
    pad_id: int,
) -> HeldOutMetrics:
    """Evaluate a model on held-out rows by the loss that it is trained with.

    For dpo the loss of a pair is ``-log sigmoid(margin)`` of its rewards (arXiv 2305.18290,
    equation 7), for orpo the chosen answer's mean negative log-likelihood plus ``beta`` times the
    odds-ratio loss (arXiv 2403.07691, equation 6), for kto ``1 - sigmoid(±reward)`` (arXiv
    2402.01306, equation 8, with its reference point at zero). Token accuracy is that of the better
    answers.

    Args:
        model: As in ``held_out_metrics``.
        rows: The held-out split that was prepared for the objective.
        objective: "sft", "dpo", "orpo" or "kto".
        beta: ``train.beta``.
        reference: The reference model's log-probabilities of the same rows; None: the model is it.
        batch_size: Answers in one forward pass.
        pad_id: As in ``held_out_metrics``.
    """
    if objective == "sft":
        return held_out_metrics(model, rows, batch_size=batch_size, pad_id=pad_id)
    names = ["completion"] if objective == "kto" else ["chosen", "rejected"]
    measured = {
        name: held_out_metrics(model, _answers(rows, name), batch_size=batch_size, pad_id=pad_id)
        for name in names
    }
    found = {name: [-loss for loss in one.row_losses] for name, one in measured.items()}
    reference = reference or found
    if objective == "orpo":
        means = {
            name: [p / n for p, n in zip(found[name], one.row_tokens, strict=True)]
            for name, one in measured.items()
        }
        rewards = {name: [beta * p for p in values] for name, values in means.items()}
        losses = [
            -chosen - beta * _log_sigmoid(_log_odds(chosen) - _log_odds(rejected))
            for chosen, rejected in zip(*means.values(), strict=True)
        ]
    else:
        rewards = {
            name: [beta * (p - q) for p, q in zip(found[name], reference[name], strict=True)]
            for name in names
        }
    if objective == "kto":
        signs = [1.0 if label else -1.0 for label in rows["label"]]
        right = [sign * one for sign, one in zip(signs, rewards["completion"], strict=True)]
        losses = [1.0 - math.exp(_log_sigmoid(one)) for one in right]
        good = [r for r, sign in zip(rewards["completion"], signs, strict=True) if sign > 0]
        bad = [r for r, sign in zip(rewards["completion"], signs, strict=True) if sign < 0]
        margin, preferred = _mean(good) - _mean(bad), None
    else:
        right = [a - b for a, b in zip(rewards["chosen"], rewards["rejected"], strict=True)]
        if objective == "dpo":
            losses = [-_log_sigmoid(one) for one in right]
        margin, preferred = _mean(right), _preferred(measured)
    better = measured[names[0]]
    return HeldOutMetrics(
        loss=_mean(losses),
        token_accuracy=better.token_accuracy,
        tokens=better.tokens,
        rows=better.rows,
        row_losses=losses,
        row_tokens=[1] * len(losses),
        rewards=Rewards(
            objective=objective,
            margin=margin,
            accuracy=_wins(right),
            preferred=preferred,
            log_probabilities=found,
        ),
    )


def _answers(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    import datasets

    prompts, answers = rows["prompt_ids"], rows[f"{name}_ids"]
    pairs = list(zip(prompts, answers, strict=True))
    return datasets.Dataset.from_dict(
        {
            "input_ids": [prompt + answer for prompt, answer in pairs],
            "labels": [[IGNORED] * len(prompt) + answer for prompt, answer in pairs],
        }
    )


def _preferred(measured: Mapping[str, HeldOutMetrics]) -> float:
    """The share of pairs whose chosen answer has the lower loss per token."""
    per_token = [
        [loss / tokens for loss, tokens in zip(one.row_losses, one.row_tokens, strict=True)]
        for one in (measured["chosen"], measured["rejected"])
    ]
    return _wins([worse - better for better, worse in zip(*per_token, strict=True)])


def _wins(differences: Sequence[float]) -> float:
    return _mean([1.0 if one > 0 else 0.5 if one == 0 else 0.0 for one in differences])


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def _log_odds(log_probability: float) -> float:
    """``log(p / (1 - p))`` of a probability given by its logarithm, which is below zero."""
    return log_probability - math.log(-math.expm1(min(log_probability, -1e-9)))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
