"""SwiGLU of two adapted projections: their adapters are added where it is worked out.

``h = silu(gate + xz_gate B_gate^T) * (up + xz_up B_up^T)``, where ``gate`` and ``up`` are the frozen
projections' outputs. Added beforehand, each adapter would read and write an output of 14,336 numbers a
token once more, in the forward and in the backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(gate: Tensor, up: Tensor, xz: Tensor, b_gate: Tensor, b_up: Tensor) -> Tensor:
    """``h``, (rows, inner).

    Args:
        gate: Output of the frozen projection, (rows, inner).
        up: Likewise.
        xz: The inputs of both adapters' B side by side, (rows, rank of gate + rank of up).
        b_gate: (inner, rank).
        b_up: Likewise.
    """
    if gate.is_cuda:
        from llm_engineering.model.finetuning import swiglu_kernels

        return swiglu_kernels.forward(gate, up, xz, b_gate, b_up)
    e, g = _adapted(gate, up, xz, b_gate, b_up)
    return torch.nn.functional.silu(e) * g


def backward(
    dh: Tensor,
    dhz: Tensor,
    z: Tensor,
    gate: Tensor,
    up: Tensor,
    xz: Tensor,
    b_gate: Tensor,
    b_up: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """``h`` and the gradients of gate and up, in the place of ``dh``, ``gate`` and ``up`` on a GPU.

    Args:
        dh: What the frozen projection down gives for the gradient of ``h``, (rows, inner).
        dhz: What is missing of it is ``dhz z``: (rows, rank of down).
        z: (rank of down, inner).
        gate: As for ``forward``, and so are the others.
        up: Likewise.
        xz: Likewise.
        b_gate: Likewise.
        b_up: Likewise.
    """
    if gate.is_cuda:
        from llm_engineering.model.finetuning import swiglu_kernels

        return swiglu_kernels.backward(dh, dhz, z, gate, up, xz, b_gate, b_up)
    e, g = _adapted(gate, up, xz, b_gate, b_up)
    dh = dh + dhz @ z
    sigmoid = torch.sigmoid(e)
    f = e * sigmoid
    return f * g, dh * g * sigmoid * (1 + e * (1 - sigmoid)), dh * f


def _adapted(
    gate: Tensor, up: Tensor, xz: Tensor, b_gate: Tensor, b_up: Tensor
) -> tuple[Tensor, Tensor]:
    first, second = xz.split([b_gate.shape[1], b_up.shape[1]], 1)
    return gate + first @ b_gate.t(), up + second @ b_up.t()
