"""The GPU memory that a training needs, from its workload alone, before a weight is loaded."""

from __future__ import annotations

from pydantic import BaseModel, Field

from llm_engineering.objectives import OBJECTIVES
from llm_engineering.planning.held_out_batch import PIECE_BYTES, is_by_pieces, rows_in_a_pass
from llm_engineering.planning.shape import LayerShape
from llm_engineering.planning.workload import Workload

WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
"""Of a parameter that is not quantised."""
_QUANTISED_BYTES = {
    "nf4": 0.5 + 1.03 / 64,  # 4 bits; a block of 64 shares one 8-bit scale and its part of another
    "fp8": 1.002,  # a byte; a row shares one 32-bit scale
}
_OPTIMIZER_BYTES = {"adamw_torch": 8.0, "adamw_8bit": 2.06, "paged_adamw_8bit": 0.1}
_CONTEXT = 0.9e9
_SPARE = 0.2e9  # what a model of 0.13 B parameters took beyond its parts, in nine settings
_LOSS_CHUNK_BYTES = 4 * 1024**3  # unsloth_zoo's cap on a chunk of its fused loss, at 16 bytes ...
_LOSS_PLANNED, _LOSS_USED = 16.0, 1.5  # ... a logit; compiled, it is found to use so many.
_EVALUATION_CHUNK = 256
_ROOM = 0.3  # hidden widths a token and layer, beyond what the modules say: fitted to Llama's
_UNFUSED = 1.16  # what a layer that unsloth writes keeps where its fused kernels are not used
_COMPILED = 1.4  # what a layer that it only compiles keeps, experts apart: fitted to Phi-3's
_OWN_LAYERS = ("llama", "mistral", "gemma", "gemma2", "qwen2", "qwen3")
"""Families whose layers unsloth writes itself (its loader's dispatch); it compiles those of others."""


class MemoryEstimate(BaseModel):
    """Bytes of GPU memory by what takes them."""

    weights: float = Field(description="Frozen base weights.")
    adapter: float = Field(description="Adapter, its gradients and the optimizer's state.")
    activations: float = Field(description="Kept for the backward pass of one micro-batch.")
    working: float = Field(description="One layer's backward pass, or the loss, if that is more.")
    evaluation: float = Field(description="A held-out batch, when nothing is kept for training.")
    spare: float = Field(
        _SPARE, description="cuBLAS's workspaces, and what the allocator has reserved and not used."
    )
    context: float = Field(_CONTEXT, description="CUDA context and libraries.")
    loading: float = Field(
        0.0, description="While weights are loaded, where those take more than in training."
    )

    @property
    def training(self) -> float:
        """Peak of an optimizer step, in bytes, as PyTorch reserves them: without the context."""
        return self._always + self.activations + self.working

    @property
    def evaluating(self) -> float:
        """Likewise, of a held-out evaluation."""
        return self._always + self.evaluation

    @property
    def reserved(self) -> float:
        """Peak of the whole run: an optimizer step, or what takes more before or beside it."""
        return max(self.training, self.evaluating, self.loading)

    @property
    def _always(self) -> float:
        return self.weights + self.adapter + self.spare

    @property
    def total(self) -> float:
        """What the card must have free, in bytes."""
        return self.reserved + self.context

    def largest(self) -> str:
        """The largest part, in words."""
        name, value = max(self.model_dump().items(), key=lambda part: part[1])
        return f"{name} {value / 1024**3:.1f} GiB"


def estimate_memory(work: Workload, micro_batch: int, checkpointing: str) -> MemoryEstimate:
    """Estimate the peak memory of training on one GPU.

    What a layer keeps for its backward pass is counted from its modules (``LayerShape.kept``), with
    0.3 hidden widths more, as measured; where rows are not packed, the attention's output once more.
    The backward pass of a layer needs 1.6 inner widths more. With plain checkpointing one
    hidden state a layer is kept and one layer is recomputed at a time; unsloth's kind keeps the
    states in host memory, and three of them on the GPU at a time; in tiles, of the dense feed-forward
    part only what as many tokens keep as the model is wide, and 10.7 states. Where an adapter is not on all
    projections, or drops out, unsloth's fused kernels are not used, and more is kept; more still where
    the family is not one whose layers unsloth writes itself. DoRA keeps four 32-bit numbers for each
    output of a projection.
    Where tokens train, the embeddings and the output layer are made anew with their rows, and have a
    gradient each. FP8 weights are loaded in 16 bit, and in the backward pass the bytes of a layer's largest group of
    projections are there once more, transposed. All constants are fitted to the runs of benchmarks/NOTES.md.

    Args:
        work: What is trained.
        micro_batch: Rows in one forward pass.
        checkpointing: "none", "plain", "unsloth" or "tiled".
    """
    shape = work.shape
    width = WEIGHT_BYTES[work.dtype]
    tokens = micro_batch * work.longest_row * work.sequences_per_row
    state = tokens * width * shape.hidden
    mask = tokens**2 * width if needs_mask(shape.family, work.train.packing) else 0.0
    kept = [
        (layer.count, tokens * _kept_bytes(work, layer, width) + mask) for layer in shape.layers
    ]
    largest = max(size for _, size in kept)
    tile = min(tokens, shape.hidden)  # unsloth's own choice of a tile
    tiled = [
        size - max(tokens - tile, 0) * layer.kept_in_tiles * width
        for (_, size), layer in zip(kept, shape.layers, strict=True)
    ]
    activations = {
        "none": sum(count * size for count, size in kept),
        "plain": shape.depth * state + largest,
        "unsloth": 3 * state + largest,
        "tiled": 10.7 * state + max(tiled),
    }[checkpointing]
    inner = max(layer.inner for layer in shape.layers)
    in_fp8 = work.quantisation == "fp8"
    return MemoryEstimate(
        weights=_weight_bytes(work),
        adapter=work.adapter.parameters * (4 + 4 + _OPTIMIZER_BYTES[work.train.optimizer]),
        activations=activations,
        working=max(
            (tile if checkpointing == "tiled" else tokens) * width * 1.6 * inner
            + (2.0 * inner * shape.hidden if in_fp8 else 0.0),
            _loss_bytes(work, tokens),
        )
        + 2.0 * _matrices_with_rows(work, width),
        loading=shape.parameters * width if in_fp8 else 0.0,
        evaluation=_evaluation_bytes(work, width) + _matrices_with_rows(work, width),
    )


def _kept_bytes(work: Workload, layer: LayerShape, width: float) -> float:
    """Bytes that a token keeps of a layer for the backward pass."""
    shape = work.shape
    numbers = layer.kept + _ROOM * shape.hidden
    if not work.train.packing:  # packed rows go through attention without a copy of its output
        numbers += layer.attention
    if shape.family not in _OWN_LAYERS:
        numbers *= _COMPILED
    elif not _is_fused(work):
        numbers *= _UNFUSED
    numbers += layer.kept_by_experts
    outputs = work.adapter.outputs / shape.depth if work.lora.use_dora else 0.0
    return numbers * width + 16.0 * outputs


def needs_mask(family: str, packing: bool) -> bool:
    """Whether packed rows go through attention with a mask over all tokens of a micro-batch.

    The layers that unsloth writes have a kernel for rows of several documents; others' attention is
    PyTorch's, which keeps the mask of each layer, in the type that it computes in.
    """
    return packing and family not in _OWN_LAYERS


def _is_fused(work: Workload) -> bool:
    return work.adapter.is_everywhere and not work.lora.lora_dropout


def _matrices_with_rows(work: Workload, width: float) -> float:
    """Embeddings and output layer with the rows of trained tokens in them, beside the base model's."""
    return (
        2.0 * width * work.shape.vocabulary * work.shape.hidden * bool(work.lora.trainable_tokens)
    )


def _weight_bytes(work: Workload) -> float:
    width = WEIGHT_BYTES[work.dtype]
    total, quantised = work.shape.parameters, work.shape.linear_parameters
    if work.quantisation == "nf4":  # unsloth quantises the experts too
        quantised += work.shape.expert_parameters
    narrow = _QUANTISED_BYTES.get(work.quantisation, width)
    return (total - quantised) * width + quantised * narrow


def _loss_bytes(work: Workload, tokens: int) -> float:
    """The logits of one chunk of tokens; a preference objective makes those of all of them."""
    if OBJECTIVES[work.train.objective].makes_all_logits:
        return tokens * work.shape.vocabulary * 8.0
    chunks = tokens * work.shape.vocabulary * _LOSS_PLANNED / _LOSS_CHUNK_BYTES
    rows = tokens / (1 if chunks <= 1 else 4 * -(-chunks // 4))
    return rows * work.shape.vocabulary * _LOSS_USED


def _evaluation_bytes(work: Workload, width: float) -> float:
    rows = rows_in_a_pass(work.evaluate.batch_size, work.longest_row)
    tokens = rows * work.longest_row * work.sequences_per_row
    logits = tokens * work.shape.vocabulary * width
    if is_by_pieces(tokens, work.shape.vocabulary):
        logits = PIECE_BYTES + tokens * width * work.shape.hidden
    chunk = min(tokens, _EVALUATION_CHUNK) * work.shape.vocabulary * 12.0
    inner = max(layer.inner for layer in work.shape.layers)
    return logits + chunk + tokens * width * (4 * work.shape.hidden + 2 * inner)
