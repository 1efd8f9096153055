"""Attention over several documents in one call, where unsloth would make one a document.

A packed row holds several documents, and unsloth lines up the rows of a micro-batch without padding;
none may see another. From PyTorch 2.12 on unsloth gives them all to one call with the documents'
boundaries. The same kernel is in PyTorch before (it is FlashAttention-2's); only its public name is
not. Without it, a micro-batch of 30 documents costs 30 calls and their copies a layer, and the GPU
waits for the host (benchmarks/NOTES.md).
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)

_LARGEST_ERROR = 0.02  # relative, in 16 bit; two of PyTorch's own kernels differ by 0.002
_LENGTHS = (48, 17, 63)


def enable_varlen_attention() -> bool:
    """Let unsloth use the kernel where it would not, if it computes here what it should.

    Returns:
        Whether anything was changed: not without an NVIDIA GPU of compute capability 8 or more,
        not where unsloth uses the kernel already, and not where a trial of it fails.
    """
    import torch

    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] < 8:
        return False
    from unsloth.utils import attention_dispatch

    if attention_dispatch._TORCH_VARLEN_ATTN is not None:
        return False
    kernel = attention_dispatch._LeanFlashVarlen
    try:
        error = kernel_error(kernel, "cuda")
    except (RuntimeError, TypeError) as reason:
        logger.info("attention: one call a document (%s)", reason)
        return False
    if not error < _LARGEST_ERROR:
        logger.info("attention: one call a document (error %.3g)", error)
        return False

    def attend(q: Any, k: Any, v: Any, cu_q: Any, _: Any, longest: int, *__: Any, **o: Any) -> Any:
        left, right = o["window_size"]
        causal = (left, right) == (-1, 0)
        return kernel.apply(q, k, v, cu_q, longest, causal, o["scale"], left, right)

    attention_dispatch._TORCH_VARLEN_ATTN = attend
    attention_dispatch._varlen_can_use_cudnn = lambda *_: False
    attention_dispatch._LEAN_VARLEN = True
    return True


def kernel_error(kernel: Any, device: str) -> float:
    """Largest relative error of output and gradients against one call a document, grouped queries.

    Args:
        kernel: Called as ``kernel.apply(q, k, v, ends, longest, causal, scale, left, right)``;
            tensors ``(tokens, heads, width)``, and where each document ends, from 0 on.
        device: "cuda", or "cpu" for another implementation of the same.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    has_bfloat16 = device == "cpu" or torch.cuda.is_bf16_supported()
    dtype = torch.bfloat16 if has_bfloat16 else torch.float16
    total = sum(_LENGTHS)
    generator = torch.Generator(device).manual_seed(0)

    def tensor(heads: int) -> Any:
        return torch.randn(
            total, heads, 64, device=device, dtype=dtype, generator=generator
        ).requires_grad_()

    inputs = tensor(8), tensor(2), tensor(2)
    ends = torch.tensor((0, *_LENGTHS), device=device).cumsum(0, dtype=torch.int32)
    ours = kernel.apply(*inputs, ends, max(_LENGTHS), True, None, -1, 0)
    documents = zip(*(x.transpose(0, 1).split(_LENGTHS, 1) for x in inputs), strict=True)
    parts = [
        scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)[0]
        for q, k, v in documents
    ]
    theirs = torch.cat(parts, 1).transpose(0, 1)
    weights = torch.randn(ours.shape, device=device, dtype=dtype, generator=generator)
    pairs = [
        (ours, theirs),
        *zip(
            torch.autograd.grad((ours * weights).sum(), inputs),
            torch.autograd.grad((theirs * weights).sum(), inputs),
            strict=True,
        ),
    ]
    return max(
        float((a.detach().float() - b.detach().float()).norm() / b.detach().float().norm())
        for a, b in pairs
    )
