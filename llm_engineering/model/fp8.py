"""Frozen weights in FP8: one byte a parameter, and products at twice the rate of bfloat16.

What it trades
--------------
LoRA trains two thin matrices beside each frozen projection ``W`` (out, in), and spends nearly all its
operations on two products with ``W``: ``y = x W^T`` on the way forward, ``dx = dy W`` on the way back.
Since Ada and Hopper, tensor cores multiply 8-bit floats twice as fast as 16-bit ones. An e4m3 number has
three bits of mantissa: each is within 6 % of what it stands for (1.8 % on average), and the errors of a
sum of thousands of products mostly cancel out. What is trained (adapters), what is sensitive (norms,
attention, embeddings, the output head) and what is summed (the accumulators) keep their precision. The
adapter learns on the rounded weights, as in QLoRA, and is merged into the original 16-bit ones.

One copy of the weights
-----------------------
Each number needs a scale, or most would fall off e4m3's range (448 down to 2^-9). A row of ``W`` shares
one: ``W = diag(s) Q``. That serves both products with the one matrix Q:

    y  = x W^T  =  (x Q^T) diag(s)        a scale for each output column, which the product applies
    dx = dy W   =  (dy diag(s)) Q         the same scales, folded into dy before dy is quantised

The activations' scales are by row too (a token each), worked out as they are quantised: no history, no
calibration. Tensor cores want both matrices contiguous along the summed dimension. Q is stored so for
``y``; for ``dx`` its bytes are transposed into a scratch buffer when a layer's turn comes, which costs a
read and a write of a byte a parameter. So a weight takes 1 + 4 / in bytes a parameter.

Projections that read the same input (q, k, v; gate, up) are one matrix stacked: the input is quantised
once, and ``dx`` is one product over all their outputs, summed in its accumulator.

Where
-----
Compute capability 8.9 (Ada), 9.0 (Hopper), 10.0 and 12.0 (Blackwell). Elsewhere ``model.quantisation: fp8``
is refused. The functions here also run on a CPU, in 32 bit on the same rounded numbers: tests compare
with that, and nothing trains so.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

logger = logging.getLogger(__name__)

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""The largest number of e4m3."""

_MULTIPLE = 16
"""Tensor cores take FP8 matrices whose sides are multiples of so much."""

_ROUTERS = ("router", "gate", "shared_expert_gate")
"""Names of projections that choose experts, which small errors would flip."""


class Fp8Linear(torch.nn.Linear):
    """A frozen projection in FP8.

    It has no ``weight``, which PEFT and unsloth would read as 16 bit. ``qweight`` holds e4m3 numbers as
    bytes, which DDP can broadcast; ``scale`` is (out,), float32.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        """Hold a projection's weights, which are let go of."""
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.compute_dtype = linear.weight.dtype  # PEFT asks for it
        self.register_parameter("weight", None)
        self.bias = linear.bias
        self.hold(linear.weight)

    @torch.no_grad()
    def hold(self, weight: torch.Tensor) -> None:
        """Quantise a weight (out, in) by row."""
        quantised, scale = quantise_rows([weight.detach()])
        self.qweight = torch.nn.Parameter(quantised.view(torch.uint8), requires_grad=False)
        self.register_buffer("scale", scale.flatten())

    def dequantised(self) -> torch.Tensor:
        """The weights that it computes with, (out, in), in float32."""
        return self.qweight.view(FP8).float() * self.scale[:, None]

    @torch.compiler.disable  # it cannot look into what is imported where there is a GPU
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        y = _Product.apply(x.reshape(-1, self.in_features), self)
        y = y.view(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias

    if TYPE_CHECKING:
        qweight: torch.nn.Parameter
        scale: torch.Tensor


class _Product(torch.autograd.Function):
    """``x W^T`` of one projection, for whatever reaches it by itself."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, linear: Fp8Linear) -> torch.Tensor:
        ctx.linear = linear
        return multiply(quantise_rows([x]), linear)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None]:
        return multiply_back([dy], [ctx.linear]), None


def quantise_rows(
    parts: Sequence[torch.Tensor], column_scales: Sequence[torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices side by side in e4m3, with one scale a row.

    Args:
        parts: (rows, n) each; at most three, their columns contiguous.
        column_scales: (n,) for each of them, float32: its columns are multiplied by these first.

    Returns:
        (rows, sum of n) in FP8, and (rows, 1) in float32, whose product is what was given.
    """
    if parts[0].is_cuda:
        from llm_engineering.model import fp8_kernels

        return fp8_kernels.quantise_rows(
            list(parts), list(column_scales) if column_scales else None
        )
    scaled = [part.float() for part in parts]
    if column_scales is not None:
        scaled = [part * scale for part, scale in zip(scaled, column_scales, strict=True)]
    whole = torch.cat(scaled, 1)
    scale = whole.abs().amax(1, keepdim=True).clamp(min=1e-30) / LARGEST
    return (whole / scale).to(FP8), scale


def multiply(x: tuple[torch.Tensor, torch.Tensor], linear: Fp8Linear) -> torch.Tensor:
    """``x W^T``: (rows, in) quantised -> (rows, out)."""
    weight = linear.qweight.view(FP8)
    return _scaled_product(x, weight, linear.scale[None, :], linear.compute_dtype)


def multiply_back(dys: Sequence[torch.Tensor], linears: Sequence[Fp8Linear]) -> torch.Tensor:
    """``dy_1 W_1 + dy_2 W_2 + ...``: (rows, out) each -> (rows, in)."""
    dy = quantise_rows(dys, [linear.scale for linear in linears])
    weight = transposed([linear.qweight for linear in linears]).view(FP8)
    ones = torch.ones((1, weight.shape[0]), dtype=torch.float32, device=weight.device)
    return _scaled_product(dy, weight, ones, linears[0].compute_dtype)


def transposed(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Matrices (out, in) of bytes below one another, transposed: (in, sum of out)."""
    if weights[0].is_cuda:
        from llm_engineering.model import fp8_kernels

        return fp8_kernels.transposed(list(weights))
    return torch.cat(list(weights)).t().contiguous()


def _scaled_product(
    x: tuple[torch.Tensor, torch.Tensor],
    weight: torch.Tensor,
    scale: torch.Tensor,
    dtype: torch.dtype,
) -> torch.Tensor:
    """``x W^T`` of (rows, k) and (out, k) in FP8, with scales (rows, 1) and (1, out)."""
    values, scales = x
    if values.is_cuda:
        return torch._scaled_mm(
            values, weight.t(), scales, scale, out_dtype=dtype, use_fast_accum=True
        )
    return ((values.float() * scales) @ (weight.float().t() * scale)).to(dtype)


def quantise_projections(model: Any) -> None:
    """Put the projections of a model's text decoder into FP8, one after the other, in place.

    Embeddings, the output head, norms, routers and what reads images stay as they are, and so does a
    projection whose sides are no multiples of 16, which is said.
    """
    kept = []
    for name, module in list(model.get_decoder().named_modules()):
        for child_name, child in list(module.named_children()):
            if type(child) is not torch.nn.Linear or child_name in _ROUTERS:
                continue
            if child.in_features % _MULTIPLE or child.out_features % _MULTIPLE:
                kept.append(f"{name}.{child_name} ({child.out_features} x {child.in_features})")
                continue
            setattr(module, child_name, Fp8Linear(child))
    if kept:
        logger.warning(
            "model.quantisation: fp8 leaves %d projections in 16 bit, whose sides are no multiples of "
            "%d, as %s",
            len(kept),
            _MULTIPLE,
            kept[0],
        )
