"""``swiglu`` in Triton: a tile of rows and inner features, the adapters' part of it by tensor cores."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_STEP = 32
Tile = tuple[int, int, int]
"""Rows, columns, and warps that work on them."""

_TILE: Tile = (32, 128, 4)  # the fastest of seven on an H200 (benchmarks/NOTES.md)


@triton.jit
def _thin(left, right, row, column, rows, columns, l_stride, r_k, r_n, rank,
          step: tl.constexpr, m: tl.constexpr, n: tl.constexpr):  # fmt: skip
    """A tile of (rows, rank) @ (rank, columns), in float32."""
    total = tl.zeros((m, n), tl.float32)
    for start in range(0, rank, step):
        k = start + tl.arange(0, step)
        a = tl.load(
            left + row[:, None].to(tl.int64) * l_stride + k[None, :],
            mask=(row < rows)[:, None] & (k < rank)[None, :], other=0.0,
        )  # fmt: skip
        b = tl.load(
            right + k[:, None] * r_k + column[None, :] * r_n,
            mask=(k < rank)[:, None] & (column < columns)[None, :], other=0.0,
        )  # fmt: skip
        total = tl.dot(a, b, total)
    return total


@triton.jit
def _forward_kernel(
    gate, up, xz, b_gate, b_up, h, rows, columns, xz_stride, rank_gate, rank_up,
    step: tl.constexpr, m: tl.constexpr, n: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1) * m + tl.arange(0, m)
    column = tl.program_id(0) * n + tl.arange(0, n)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = row[:, None].to(tl.int64) * columns + column[None, :]
    e = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    e += _thin(
        xz, b_gate, row, column, rows, columns, xz_stride, 1, rank_gate, rank_gate, step, m, n
    )
    g += _thin(
        xz + rank_gate, b_up, row, column, rows, columns, xz_stride, 1, rank_up, rank_up, step, m, n
    )
    tl.store(h + at, (e * tl.sigmoid(e) * g).to(h.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    dh, dhz, z, gate, up, xz, b_gate, b_up, rows, columns, xz_stride, rank_down, rank_gate, rank_up,
    step: tl.constexpr, m: tl.constexpr, n: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1) * m + tl.arange(0, m)
    column = tl.program_id(0) * n + tl.arange(0, n)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = row[:, None].to(tl.int64) * columns + column[None, :]
    e = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(dh + at, mask=inside, other=0.0).to(tl.float32)
    e += _thin(
        xz, b_gate, row, column, rows, columns, xz_stride, 1, rank_gate, rank_gate, step, m, n
    )
    g += _thin(
        xz + rank_gate, b_up, row, column, rows, columns, xz_stride, 1, rank_up, rank_up, step, m, n
    )
    d += _thin(dhz, z, row, column, rows, columns, rank_down, columns, 1, rank_down, step, m, n)
    sigmoid = tl.sigmoid(e)
    f = e * sigmoid
    kind = dh.dtype.element_ty
    tl.store(dh + at, (f * g).to(kind), mask=inside)
    tl.store(gate + at, (d * g * sigmoid * (1.0 + e * (1.0 - sigmoid))).to(kind), mask=inside)
    tl.store(up + at, (d * f).to(kind), mask=inside)


def forward(
    gate: Tensor, up: Tensor, xz: Tensor, b_gate: Tensor, b_up: Tensor, tile: Tile = _TILE
) -> Tensor:
    """As ``swiglu.forward``; all matrices contiguous."""
    h = torch.empty_like(gate)
    rows, columns = gate.shape
    _forward_kernel[_grid(rows, columns, tile)](
        gate, up, xz, b_gate, b_up, h, rows, columns, xz.stride(0), b_gate.shape[1], b_up.shape[1],
        _STEP, tile[0], tile[1], num_warps=tile[2],
    )  # fmt: skip
    return h


def backward(
    dh: Tensor,
    dhz: Tensor,
    z: Tensor,
    gate: Tensor,
    up: Tensor,
    xz: Tensor,
    b_gate: Tensor,
    b_up: Tensor,
    tile: Tile = _TILE,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``swiglu.backward``, in place; all matrices contiguous."""
    rows, columns = gate.shape
    _backward_kernel[_grid(rows, columns, tile)](
        dh, dhz, z, gate, up, xz, b_gate, b_up, rows, columns, xz.stride(0), z.shape[0],
        b_gate.shape[1], b_up.shape[1], _STEP, tile[0], tile[1], num_warps=tile[2],
    )  # fmt: skip
    return dh, gate, up


def _grid(rows: int, columns: int, tile: Tile) -> tuple[int, int]:
    return triton.cdiv(columns, tile[1]), triton.cdiv(rows, tile[0])
