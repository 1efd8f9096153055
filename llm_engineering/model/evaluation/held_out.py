"""Loss, perplexity and token accuracy of a model on rows it was not trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from llm_engineering.data.tokens.tokenization import IGNORED
from llm_engineering.model.evaluation.inference import inference
from llm_engineering.model.evaluation.rewards import Rewards
from llm_engineering.peers import ALONE, Peers
from llm_engineering.planning.held_out_batch import is_by_pieces, rows_in_a_pass

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        batch_size: Rows in one forward pass at most; rows of like length go together, and fewer of
            long ones (``rows_in_a_pass``).
        pad_id: Fills short rows; masked, so any id does.
        peers: The processes that hold the model, or a part of it; all of them must ask, and all get
            the same figures, which are those of one process.

    The model is left in the mode (training or evaluation) that it came in.
    """
    pairs = list(zip(rows["input_ids"], rows["labels"], strict=True))
    by_length = sorted(range(len(pairs)), key=lambda index: len(pairs[index][0]))
    batches = list(_batches([len(pairs[index][0]) for index in by_length], batch_size))
    found: dict[int, tuple[float, int]] = {}
    correct = 0
    with inference(model) as device:
        # Where each process holds a part of the weights, all must make equally many forward passes:
        # one that has no batch left repeats the last.
        for turn in range(0, len(batches), peers.ranks()):
            own = min(turn + peers.rank(), len(batches) - 1)
            indices = by_length[batches[own]]
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


def _batches(lengths: list[int], batch_size: int) -> Iterator[slice]:
    """Parts of rows that are in the order of their lengths, each for one forward pass."""
    start = 0
    while start < len(lengths):
        end = start + 1
        while end < len(lengths) and end - start < rows_in_a_pass(batch_size, lengths[end]):
            end += 1
        yield slice(start, end)
        start = end


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
    vocabulary = model.get_output_embeddings().weight.shape[0]
    if device.type == "cuda" and is_by_pieces(labels.numel(), vocabulary):
        losses, correct = _by_pieces(model, input_ids.to(device), mask.to(device), labels)
        counts = (labels != IGNORED).sum(1)
        return list(zip(losses.tolist(), counts.tolist(), strict=True)), correct
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


def _by_pieces(model: Any, input_ids: Any, mask: Any, labels: Any) -> tuple[Any, int]:
    """Each row's summed loss, and how many tokens were the likeliest, without all logits at once.

    trl's fused head goes through the labelled positions in tiles of 4,096 tokens by 32,768 of the
    vocabulary; it is one of Triton's kernels, for GPUs. The logits of a row of 131,072 tokens would
    be 34 GB for Llama 3's vocabulary.
    """
    from trl.trainer.utils import add_fused_lm_head

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = vars(base).get("forward")
    add_fused_lm_head(base, outputs=("log_probs", "is_top1"))
    try:
        found = model(
            input_ids=input_ids,
            attention_mask=mask,
            labels=labels.to(input_ids.device),
            fused_lm_head=True,
        )
    finally:
        if before is None:
            del base.forward
        else:
            base.forward = before
    return -found.log_probs.double().sum(1), int(found.is_top1.sum())
