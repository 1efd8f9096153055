"""LoRA's forward and backward pass beside FP8 weights, for projections that read the same input.

PEFT leaves them to autograd, an adapter at a time, and unsloth's own passes know 16-bit weights. Once
the large products are in FP8, the adapters' thin ones would take as long: each reads or writes a whole
activation for a few numbers. So here

- an input is quantised once for all projections that read it (q, k, v; gate, up), and their ``A`` are
  stacked, so that it is read once more;
- ``x A^T`` is kept for the backward pass (a few numbers a token), not worked out again;
- what the adapters of gate and up give is added where ``h`` is worked out, in both directions
  (``swiglu``);
- the gradient of the input is one large product over all of the projections' outputs, and a thin one.

The feed-forward block is one function, since what the last projection reads (``h``) is worked out again
from what gate and up gave rather than kept. On 16-bit weights such passes gave 16,274 tokens/s, and
unsloth's 16,067 in another run (benchmarks/NOTES.md): not worth a second way, so there unsloth's stay.

With ``y_i = x W_i^T + s_i (x A_i^T) B_i^T`` and ``Z = [s_i A_i]``, stacked:

    dB_i = dy_i^T (x Z^T)_i      dZ = [dy_i B_i]^T x      dx = [dy_i B_i] Z + sum dy_i W_i
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm_engineering.model.finetuning import swiglu
from llm_engineering.model.fp8 import Fp8Linear, multiply, multiply_back, quantise_rows

_LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2")
"""Model types whose attention calls unsloth's ``apply_qkv`` and ``apply_o``, and whose feed-forward block
is ``down(act(gate(x)) * up(x))``. Where ``act`` is not SiLU (Gemma), that block is left to PEFT."""


@dataclass(frozen=True)
class _Group:
    """Projections with one input: their frozen layers, and the factors of their adapters."""

    linears: tuple[Fp8Linear, ...]
    scalings: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.linears)

    def stack(self, a: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """``Z``, (sum of ranks, in)."""
        scaled = [one if s == 1 else one * s for one, s in zip(a, self.scalings, strict=True)]
        return torch.cat([one.to(dtype) for one in scaled])

    def frozen(self, x: Tensor) -> list[Tensor]:
        """``x W_i^T`` of (rows, in)."""
        quantised = quantise_rows([x])
        return [multiply(quantised, linear) for linear in self.linears]

    def adapted(self, x: Tensor, xz: Tensor, b: Sequence[Tensor]) -> list[Tensor]:
        """``y_i`` of (rows, in) and (rows, sum of ranks)."""
        thin = xz.split([one.shape[1] for one in b], 1)
        ys = self.frozen(x)
        return [y.addmm_(part, one.t()) for y, part, one in zip(ys, thin, b, strict=True)]

    def backward(self, dys: Sequence[Tensor], dxz: Tensor, z: Tensor) -> Tensor:
        """``dx``, (rows, in)."""
        return multiply_back(dys, self.linears).addmm_(dxz, z)

    def unstack(self, dz: Tensor, a: Sequence[int]) -> list[Tensor]:
        """``dA_i`` of ``dZ``; ``a`` are the ranks."""
        parts = dz.split(list(a))
        return [one if s == 1 else one * s for one, s in zip(parts, self.scalings, strict=True)]


class _SharedInput(torch.autograd.Function):
    """``y_1, y_2, ...`` of one input."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx: Any, x: Tensor, group: _Group, *adapters: Tensor) -> tuple[Tensor, ...]:
        count = len(group)
        flat = x.reshape(-1, x.shape[-1])
        z = group.stack(adapters[:count], x.dtype)
        b = [one.to(x.dtype) for one in adapters[count:]]
        xz = flat @ z.t()
        ys = group.adapted(flat, xz, b)
        ctx.group, ctx.shape = group, x.shape
        ctx.save_for_backward(flat, xz, *adapters)  # not z and b, which are copies in 16 bit
        return tuple(y.view(*x.shape[:-1], -1) for y in ys)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, xz, *adapters = ctx.saved_tensors
        group, count = ctx.group, len(ctx.group)
        z = group.stack(adapters[:count], x.dtype)
        b = [one.to(x.dtype) for one in adapters[count:]]
        ranks = [one.shape[1] for one in b]
        dys = [dy.reshape(-1, dy.shape[-1]).contiguous() for dy in grads]
        dxz = torch.cat([dy @ one for dy, one in zip(dys, b, strict=True)], 1)
        db = [dy.t() @ part for dy, part in zip(dys, xz.split(ranks, 1), strict=True)]
        da = group.unstack(dxz.t() @ x, ranks)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = group.backward(dys, dxz, z).view(ctx.shape)
        return dx, None, *da, *db


class _FeedForward(torch.autograd.Function):
    """``down(silu(gate(x)) * up(x))``; the adapters of gate and up come in where ``h`` is worked out."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx: Any, x: Tensor, inner: _Group, outer: _Group, *adapters: Tensor) -> Tensor:
        a_gate, a_up, a_down, *factors = adapters
        dtype = x.dtype
        flat = x.reshape(-1, x.shape[-1])
        z, z_down = inner.stack((a_gate, a_up), dtype), outer.stack((a_down,), dtype)
        b_gate, b_up, b_down = [one.to(dtype) for one in factors]
        xz = flat @ z.t()
        gate, up = inner.frozen(flat)
        h = swiglu.forward(gate, up, xz, b_gate, b_up)
        hz = h @ z_down.t()
        (y,) = outer.adapted(h, hz, [b_down])
        ctx.inner, ctx.outer, ctx.shape = inner, outer, x.shape
        ctx.save_for_backward(flat, xz, hz, gate, up, *adapters)
        return y.view(x.shape)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, xz, hz, gate, up, a_gate, a_up, a_down, *factors = ctx.saved_tensors
        inner, outer = ctx.inner, ctx.outer
        z, z_down = inner.stack((a_gate, a_up), x.dtype), outer.stack((a_down,), x.dtype)
        b_gate, b_up, b_down = [one.to(x.dtype) for one in factors]
        dy = grad.reshape(-1, grad.shape[-1]).contiguous()
        dhz = dy @ b_down
        db_down = dy.t() @ hz
        dh = multiply_back([dy], outer.linears)
        h, d_gate, d_up = swiglu.backward(dh, dhz, z_down, gate, up, xz, b_gate, b_up)
        (da_down,) = outer.unstack(dhz.t() @ h, [b_down.shape[1]])
        del h, dh
        ranks = [b_gate.shape[1], b_up.shape[1]]
        xz_gate, xz_up = xz.split(ranks, 1)
        dxz = torch.cat([d_gate @ b_gate, d_up @ b_up], 1)
        db_gate, db_up = d_gate.t() @ xz_gate, d_up.t() @ xz_up
        da_gate, da_up = inner.unstack(dxz.t() @ x, ranks)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = inner.backward([d_gate, d_up], dxz, z).view(ctx.shape)
        return dx, None, None, da_gate, da_up, da_down, db_gate, db_up, db_down


def fuse_adapters(model: Any) -> int:
    """Let the attention and feed-forward blocks of a Llama-like model in FP8 train by these functions.

    A block does so in each call in which its adapters are as written above: one, active, without
    dropout; else it does what it did before.

    Args:
        model: What unsloth's ``get_peft_model`` returned; changed in place.

    Returns:
        How many blocks were changed.
    """
    from transformers.activations import SiLUActivation

    changed = 0
    if model.config.model_type not in _LIKE_LLAMA:
        return changed
    for layer in model.base_model.model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        if not hasattr(attention, "apply_qkv"):
            continue  # not written by unsloth, but compiled
        if _adapted(attention, "q_proj", "k_proj", "v_proj"):
            attention.apply_qkv = _attention_input(attention.apply_qkv)
            changed += 1
        if _adapted(attention, "o_proj"):
            attention.apply_o = _attention_output(attention.apply_o)
            changed += 1
        swish = isinstance(getattr(mlp, "act_fn", None), (SiLUActivation, torch.nn.SiLU))
        if swish and _adapted(mlp, "gate_proj", "up_proj", "down_proj"):
            mlp.forward = types.MethodType(_feed_forward(mlp.forward), mlp)
            changed += 1
    return changed


def _attention_input(otherwise: Callable[..., Any]) -> Callable[..., Any]:
    def apply_qkv(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        if not all(map(_is_plain, projections)):
            return otherwise(self, x, *args, **kwargs)
        return _SharedInput.apply(x, *_group(projections))

    return apply_qkv


def _attention_output(otherwise: Callable[..., Any]) -> Callable[..., Any]:
    def apply_o(self: Any, x: Tensor) -> Any:
        if not _is_plain(self.o_proj):
            return otherwise(self, x)
        (y,) = _SharedInput.apply(x, *_group((self.o_proj,)))
        return y

    return apply_o


def _feed_forward(otherwise: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        projections = (self.gate_proj, self.up_proj, self.down_proj)
        if not all(map(_is_plain, projections)):
            return otherwise(x, *args, **kwargs)
        inner, *first = _group(projections[:2])
        outer, *last = _group(projections[2:])
        adapters = (*first[:2], last[0], *first[2:], last[1])
        return _FeedForward.apply(x, inner, outer, *adapters)

    return forward


def _group(projections: Sequence[Any]) -> tuple[Any, ...]:
    names = [projection.active_adapters[0] for projection in projections]
    pairs = list(zip(projections, names, strict=True))
    return (
        _Group(
            tuple(projection.base_layer for projection in projections),
            tuple(float(projection.scaling[name]) for projection, name in pairs),
        ),
        *(projection.lora_A[name].weight for projection, name in pairs),
        *(projection.lora_B[name].weight for projection, name in pairs),
    )


def _adapted(block: Any, *names: str) -> bool:
    """Whether a block's projections all are in FP8 and carry adapters."""
    found = [getattr(block, name, None) for name in names]
    bases: list[Any] = [getattr(one, "base_layer", None) for one in found]
    return all(hasattr(one, "lora_A") for one in found) and all(
        isinstance(base, Fp8Linear) and base.bias is None for base in bases
    )


def _is_plain(projection: Any) -> bool:
    names = projection.active_adapters
    if len(names) != 1 or projection.disable_adapters or projection.merged:
        return False
    (name,) = names
    return (
        name in projection.lora_A
        and isinstance(projection.lora_dropout[name], torch.nn.Identity)
        and projection.lora_B[name].bias is None
        and name not in projection.lora_variant
    )
