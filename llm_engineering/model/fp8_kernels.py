"""Two Triton kernels of ``fp8``: rows to FP8 in one pass, and a matrix of bytes transposed.

Imported where there is a GPU alone; what they compute is stated by ``fp8``'s own functions for the CPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _quantise_kernel(
    x0, x1, x2, s0, s1, s2, stride0, stride1, stride2, out, scales,
    n0: tl.constexpr, n1: tl.constexpr, n2: tl.constexpr,
    b0: tl.constexpr, b1: tl.constexpr, b2: tl.constexpr,
    scaled: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at0 = tl.arange(0, b0)
    v0 = tl.load(x0 + row * stride0 + at0, mask=at0 < n0, other=0.0).to(tl.float32)
    if scaled:
        v0 *= tl.load(s0 + at0, mask=at0 < n0, other=0.0)
    most = tl.max(tl.abs(v0), 0)
    if n1 > 0:
        at1 = tl.arange(0, b1)
        v1 = tl.load(x1 + row * stride1 + at1, mask=at1 < n1, other=0.0).to(tl.float32)
        if scaled:
            v1 *= tl.load(s1 + at1, mask=at1 < n1, other=0.0)
        most = tl.maximum(most, tl.max(tl.abs(v1), 0))
    if n2 > 0:
        at2 = tl.arange(0, b2)
        v2 = tl.load(x2 + row * stride2 + at2, mask=at2 < n2, other=0.0).to(tl.float32)
        if scaled:
            v2 *= tl.load(s2 + at2, mask=at2 < n2, other=0.0)
        most = tl.maximum(most, tl.max(tl.abs(v2), 0))
    scale = tl.maximum(most, 1e-30) / 448.0
    tl.store(scales + row, scale)
    to = out + row * (n0 + n1 + n2)
    tl.store(to + at0, (v0 / scale).to(tl.float8e4nv), mask=at0 < n0)
    if n1 > 0:
        tl.store(to + n0 + at1, (v1 / scale).to(tl.float8e4nv), mask=at1 < n1)
    if n2 > 0:
        tl.store(to + n0 + n1 + at2, (v2 / scale).to(tl.float8e4nv), mask=at2 < n2)


def quantise_rows(
    parts: list[torch.Tensor], column_scales: list[torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ``fp8.quantise_rows``, of at most three parts."""
    parts = [part.contiguous() for part in parts]
    first = parts[0]
    rows, widths = first.shape[0], [part.shape[1] for part in parts] + [0, 0]
    out = torch.empty((rows, sum(widths)), dtype=torch.float8_e4m3fn, device=first.device)
    scales = torch.empty((rows, 1), dtype=torch.float32, device=first.device)
    x = [*parts, first, first]
    s = [*column_scales, first, first] if column_scales else [first] * 3
    blocks = [triton.next_power_of_2(width) if width else 1 for width in widths]
    warps = min(32, max(4, triton.next_power_of_2(sum(blocks)) // 1024))  # 32 numbers a thread
    _quantise_kernel[(rows,)](
        x[0], x[1], x[2], s[0], s[1], s[2], x[0].stride(0), x[1].stride(0), x[2].stride(0),
        out, scales, widths[0], widths[1], widths[2], blocks[0], blocks[1], blocks[2],
        column_scales is not None, num_warps=warps,
    )  # fmt: skip
    return out, scales


@triton.jit
def _transpose_kernel(w, out, rows, columns, stride, r: tl.constexpr, c: tl.constexpr):
    row = tl.program_id(1) * r + tl.arange(0, r)
    column = tl.program_id(0) * c + tl.arange(0, c)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tile = tl.load(w + row[:, None].to(tl.int64) * columns + column[None, :], mask=inside)
    to = out + column[:, None].to(tl.int64) * stride + row[None, :]
    tl.store(to, tl.trans(tile), mask=tl.trans(inside))


def transposed(
    weights: list[torch.Tensor], tile: tuple[int, int] = (128, 128), warps: int = 8
) -> torch.Tensor:
    """As ``fp8.transposed``."""
    columns = weights[0].shape[1]
    width = sum(weight.shape[0] for weight in weights)
    out = torch.empty((columns, width), dtype=torch.uint8, device=weights[0].device)
    at = 0
    for weight in weights:
        rows = weight.shape[0]
        grid = (triton.cdiv(columns, tile[1]), triton.cdiv(rows, tile[0]))
        _transpose_kernel[grid](
            weight, out[:, at:], rows, columns, width, tile[0], tile[1], num_warps=warps
        )
        at += rows
    return out
