"""Loss, perplexity and token accuracy of a model on rows it was not trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.model.evaluation.inference import inference
from llm_engineering.model.evaluation.rewards import Rewards
from llm_engineering.peers import ALONE, Peers

if TYPE_CHECKING:
    import datasets


# Logits are large (a vocabulary a token): so many tokens' are widened to 32 bit at a time.
_TOKENS_IN_32_BIT = 256


class HeldOutMetrics(BaseModel):
    """Metrics over all labelled tokens of the held-out rows, each token weighing the same.

    With a preference objective the loss is that objective's, each pair (or judged answer) weighing
    the same, and its rewards are there too.
    """

    loss: float = Field(description="Mean negative log-likelihood of a labelled token, in nats.")
    token_accuracy: float = Field(description="Share (0 to 1) of them that were the likeliest.")
    tokens: int = Field(description="Labelled tokens.")
    rows: int
    row_losses: list[float] = Field(
        [],
        description="Sum of the negative log-likelihoods of each row's labelled tokens, in nats.",
    )
    row_tokens: list[int] = Field([], description="Labelled tokens of each row.")
    rewards: Rewards | None = Field(None, description="Of a preference objective.")

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(self.loss)

    @property
    def unit(self) -> str:
        """Unit of the loss."""
        return "nats per token" if self.rewards is None else self.rewards.unit

    def forget_rows(self) -> None:
        """Keep the means alone: the rows' own figures matter before and after training only."""
        self.row_losses, self.row_tokens = [], []
        if self.rewards is not None:
            self.rewards.log_probabilities = {}


def held_out_metrics(
    model: Any, rows: datasets.Dataset, *, batch_size: int, pad_id: int, peers: Peers = ALONE
) -> HeldOutMetrics:
    """Evaluate a causal language model; all that hold it share the batches.

    Args:
        model: Called as ``model(input_ids, attention_mask, logits_to_keep)``; logits
            ``(batch, logits_to_keep, vocab)``.
        rows: Columns ``input_ids`` and ``labels``.
        batch_size: Rows in one forward pass; rows of like length go together.
        pad_id: Fills short rows; masked, so any id does.
        peers: The processes that hold the model, or a part of it; all of them must ask, and all get
            the same figures, which are those of one process.

    The model is left in the mode (training or evaluation) that it came in.
    """
    pairs = list(zip(rows["input_ids"], rows["labels"], strict=True))
    by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]))
    starts = range(0, len(pairs), batch_size)
    found: dict[int, tuple[float, int]] = {}
    correct = 0
    with inference(model) as device:
        # Where each process holds a part of the weights, all must make equally many forward passes:
        # one that has no batch left repeats the last.
        for turn in range(0, len(starts), peers.ranks()):
            own = min(turn + peers.rank(), len(starts) - 1)
            indices = by_length[starts[own] : starts[own] + batch_size]
            losses, hits = _batch_losses(model, [pairs[index] for index in indices], pad_id, device)
            if own == turn + peers.rank():
                found |= dict(zip(indices, losses, strict=True))
                correct += hits
    told = peers.all_values((found, correct))
    everyones = {index: one for part, _ in told for index, one in part.items()}
    row_losses = [everyones[index][0] for index in range(len(pairs))]
    row_tokens = [everyones[index][1] for index in range(len(pairs))]
    correct = sum(hits for _, hits in told)
    tokens = sum(row_tokens)
    return HeldOutMetrics(
        loss=sum(row_losses) / tokens,
        token_accuracy=correct / tokens,
        tokens=tokens,
        rows=len(pairs),
        row_losses=row_losses,
        row_tokens=row_tokens,
    )


def _batch_losses(
    model: Any, batch: list[tuple[list[int], list[int]]], pad_id: int, device: Any
) -> tuple[list[tuple[float, int]], int]:
    """Each row's summed loss and labelled tokens, and how many of the batch's were the likeliest."""
    import torch

    width = max(len(ids) for ids, _ in batch)
    input_ids = torch.full((len(batch), width), pad_id)
    labels = torch.full((len(batch), width), IGNORED)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for position, (ids, row_labels) in enumerate(batch):
        input_ids[position, : len(ids)] = torch.tensor(ids)
        labels[position, : len(ids)] = torch.tensor(row_labels)
        mask[position, : len(ids)] = 1
    # Logits cost (batch, seq, vocab): none are made before the first labelled token.
    first = int((labels != IGNORED).any(0).nonzero()[0])
    kept = width - max(first - 1, 0)
    logits = model(
        input_ids=input_ids.to(device),
        attention_mask=mask.to(device),
        logits_to_keep=kept,
    ).logits[:, :-1]
    targets = labels[:, width - kept + 1 :].to(device)
    chosen = targets != IGNORED
    losses = torch.zeros(targets.shape, device=device)
    correct = 0
    for part in chosen.nonzero().split(_TOKENS_IN_32_BIT):
        place = part.unbind(1)
        picked, wanted = logits[place].float(), targets[place]
        losses[place] = torch.nn.functional.cross_entropy(picked, wanted, reduction="none")
        correct += int((picked.argmax(-1) == wanted).sum())
    sums, counts = losses.double().sum(1).tolist(), chosen.sum(1).tolist()
    return list(zip(sums, counts, strict=True)), correct
