"""Held-out loss and rewards of a model that learns from preferences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.model.evaluation.held_out import HeldOutMetrics, held_out_metrics
from llm_engineering.model.evaluation.rewards import Rewards
from llm_engineering.objectives import OBJECTIVES
from llm_engineering.objectives.objective import MISMATCHED, Answers, mismatched
from llm_engineering.peers import ALONE, Peers

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
    peers: Peers = ALONE,
) -> HeldOutMetrics:
    """Evaluate a model on held-out rows by the loss that it is trained with.

    The objective's own file says what that is. Token accuracy is that of the better answers.

    Args:
        model: As in ``held_out_metrics``.
        rows: The held-out split that was prepared for the objective.
        objective: ``train.objective``.
        beta: ``train.beta``.
        reference: The reference model's log-probabilities of the same rows; None: the model is it.
        batch_size: Answers in one forward pass.
        pad_id: As in ``held_out_metrics``.
        peers: As in ``held_out_metrics``.
    """
    import torch

    judged_by = OBJECTIVES[objective]
    if not judged_by.is_preference:
        return held_out_metrics(model, rows, batch_size=batch_size, pad_id=pad_id, peers=peers)
    names = judged_by.answers
    sequences = {name: _sequences(rows["prompt_ids"], rows[f"{name}_ids"]) for name in names}
    if judged_by.has_reference_point:
        others = mismatched(rows["completion_ids"][:])
        sequences[MISMATCHED] = _sequences(rows["prompt_ids"], others)
    measured = {
        name: held_out_metrics(model, one, batch_size=batch_size, pad_id=pad_id, peers=peers)
        for name, one in sequences.items()
    }
    found = {name: [-loss for loss in one.row_losses] for name, one in measured.items()}
    labels: list[bool] = rows["label"][:] if judged_by.learns_from == "judged answers" else []
    judgement = judged_by.judge(
        Answers(
            log_probabilities=_tensors(found),
            tokens=_tensors({name: one.row_tokens for name, one in measured.items()}),
            reference=_tensors(reference or found),
            labels=torch.tensor(labels) if labels else None,
        ),
        beta,
    )
    losses = judgement.losses.tolist()
    rewards = {name: values.tolist() for name, values in judgement.rewards.items()}
    preferred: float | None
    if labels:
        values = rewards["completion"]
        right = [one if label else -one for one, label in zip(values, labels, strict=True)]
        good = [one for one, label in zip(values, labels, strict=True) if label]
        bad = [one for one, label in zip(values, labels, strict=True) if not label]
        margin, preferred = _mean(good) - _mean(bad), None
    else:
        right = [a - b for a, b in zip(rewards["chosen"], rewards["rejected"], strict=True)]
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


def _sequences(prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> datasets.Dataset:
    import datasets

    pairs = list(zip(prompts, answers, strict=True))
    return datasets.Dataset.from_dict(
        {
            "input_ids": [prompt + answer for prompt, answer in pairs],
            "labels": [[IGNORED] * len(prompt) + answer for prompt, answer in pairs],
        }
    )


def _tensors(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    import torch

    return {name: torch.tensor(one, dtype=torch.float64) for name, one in values.items()}


def _preferred(measured: Mapping[str, HeldOutMetrics]) -> float:
    """The share of pairs whose chosen answer has the lower loss per token."""
    per_token = [
        [loss / tokens for loss, tokens in zip(one.row_losses, one.row_tokens, strict=True)]
        for one in (measured["chosen"], measured["rejected"])
    ]
    return _wins([worse - better for better, worse in zip(*per_token, strict=True)])


def _wins(differences: Sequence[float]) -> float:
    return _mean([1.0 if one > 0 else 0.5 if one == 0 else 0.0 for one in differences])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
