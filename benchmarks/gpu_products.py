"""The products of frozen weights on one GPU, and what surrounds them: one JSON line a measurement.

What ``llm_engineering/model/fp8.py`` and ``fused_lora.py`` chose is beside what they did not: scales by
row or one a tensor, fast accumulation or not, tiles of the transposition, the thin product before the
large one or after it. Median of some 50 ms each, at the shapes of Llama-3.1-8B.

    python benchmarks/gpu_products.py [--tokens 8192]
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

SHAPES = {
    "q, o": (4096, 4096),
    "k, v": (1024, 4096),
    "gate, up": (14336, 4096),
    "down": (4096, 14336),
}
RANK = 32


def main() -> None:
    """Measure part by part; one that fails says so, and the others go on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--only", nargs="*", help="names of parts; default: all")
    options = parser.parse_args()
    for part in PARTS:
        if options.only and part.__name__ not in options.only:
            continue
        try:
            for line in part(options.tokens):
                print(json.dumps({"part": part.__name__, **line}), flush=True)
        except Exception:
            print(
                json.dumps({"part": part.__name__, "failed": traceback.format_exc()[-1500:]}),
                flush=True,
            )


def card(tokens: int) -> Any:
    """The card, its versions and its bf16 rate."""
    import torch
    import triton

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    yield {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "bf16_tflops": round(2 * 8192**3 / time(lambda: a @ b) / 1e9),
    }


def correctness(tokens: int) -> Any:
    """The kernels against the functions for the CPU, and the products against 64 bit."""
    import torch

    from llm_engineering.model import fp8

    torch.manual_seed(0)
    parts = [torch.randn(300, n, device="cuda", dtype=torch.bfloat16) for n in (1536, 576, 4096)]
    scales = [torch.rand(part.shape[1], device="cuda") + 0.5 for part in parts]
    for given in (None, scales):
        ours = fp8.quantise_rows(parts, given)
        theirs = fp8.quantise_rows([p.cpu() for p in parts], given and [s.cpu() for s in given])
        different = (ours[0].float().cpu() != theirs[0].float()).float().mean()
        yield {"quantise_different": float(different), "scale": error(ours[1], theirs[1])}
    weights = [
        torch.randint(0, 255, (n, 576), device="cuda", dtype=torch.uint8) for n in (192, 1536, 80)
    ]
    same = torch.equal(fp8.transposed(weights).cpu(), fp8.transposed([w.cpu() for w in weights]))
    yield {"transposed_equal": same}
    for out, width in SHAPES.values():
        weight = torch.nn.Linear(width, out, bias=False, device="cuda", dtype=torch.bfloat16)
        linear = fp8.Fp8Linear(weight)
        x = torch.randn(1024, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        dy = torch.randn(1024, out, device="cuda", dtype=torch.bfloat16)
        y = linear(x)
        y.backward(dy)
        w, rounded = weight.weight.detach().double(), linear.dequantised().double()
        yield {
            "shape": [out, width],
            "weight_error": error(rounded, w),
            "y_error": error(y, x.double() @ w.t()),
            "y_error_bf16": error(weight(x), x.double() @ w.t()),
            "dx_error": error(x.grad, dy.double() @ w),
            "y_accumulation": error(y, product(fp8.quantise_rows([x.detach()]), rounded.t())),
            "dx_accumulation": error(
                x.grad,
                product(fp8.quantise_rows([dy], [linear.scale]), (rounded / linear.scale[:, None])),
            ),
        }


def quantising(tokens: int) -> Any:
    """Rows to FP8: ms, and TB/s of what is read and written."""
    import torch

    from llm_engineering.model import fp8

    for widths, scaled in (
        ([4096], 0),
        ([14336], 0),
        ([4096], 1),
        ([14336, 14336], 1),
        ([4096, 1024, 1024], 1),
    ):
        parts = [torch.randn(tokens, n, device="cuda", dtype=torch.bfloat16) for n in widths]
        scales = [torch.rand(n, device="cuda") for n in widths] if scaled else None
        ms = time(lambda p=parts, s=scales: fp8.quantise_rows(p, s))
        yield {"widths": widths, "ms": ms, "tb_s": round(3 * tokens * sum(widths) / ms / 1e9, 2)}


def transposing(tokens: int) -> Any:
    """A layer's bytes transposed, by tile."""
    import torch

    from llm_engineering.model import fp8_kernels

    for shapes in (
        [(14336, 4096)] * 2,
        [(4096, 14336)],
        [(4096, 4096), (1024, 4096), (1024, 4096)],
    ):
        weights = [torch.randint(0, 255, s, device="cuda", dtype=torch.uint8) for s in shapes]
        size = sum(w.numel() for w in weights)
        for tile, warps in (((64, 64), 4), ((128, 64), 4), ((64, 128), 4), ((128, 128), 4), ((128, 128), 8), ((256, 64), 8), ((64, 256), 8), ((256, 128), 8)):  # fmt: skip
            ms = time(lambda w=weights, t=tile, n=warps: fp8_kernels.transposed(w, t, n))
            yield {
                "shapes": shapes,
                "tile": tile,
                "warps": warps,
                "ms": ms,
                "tb_s": round(2 * size / ms / 1e9, 2),
            }
        if len(weights) == 1:
            ms = time(lambda w=weights: w[0].t().contiguous())
            yield {
                "shapes": shapes,
                "tile": "torch",
                "ms": ms,
                "tb_s": round(2 * size / ms / 1e9, 2),
            }


def products(tokens: int) -> Any:
    """``x W^T`` with an adapter, and ``dy W``, by kind: ms."""
    import torch

    from llm_engineering.model import fp8

    for name, (out, width) in SHAPES.items():
        x = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16)
        dy = torch.randn(tokens, out, device="cuda", dtype=torch.bfloat16)
        weight = torch.nn.Linear(width, out, bias=False, device="cuda", dtype=torch.bfloat16)
        w = weight.weight.detach()
        xz = torch.randn(tokens, RANK, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(out, RANK, device="cuda", dtype=torch.bfloat16)
        linear = fp8.Fp8Linear(weight)
        xq, wq = fp8.quantise_rows([x]), linear.qweight.view(fp8.FP8)
        dyq = fp8.quantise_rows([dy], [linear.scale])
        wt = fp8.transposed([linear.qweight]).view(fp8.FP8)
        row, one = linear.scale[None, :], torch.ones((1, 1), device="cuda")
        ones = torch.ones((1, width), device="cuda")

        def scaled(v: Any, s: Any, m: Any, r: Any, fast: bool) -> Any:
            return torch._scaled_mm(v, m.t(), s, r, out_dtype=torch.bfloat16, use_fast_accum=fast)

        kinds: dict[str, Callable[[], Any]] = {
            "bf16 y": lambda x=x, w=w: x @ w.t(),
            "bf16 y, then thin": lambda x=x, w=w, xz=xz, b=b: (x @ w.t()).addmm_(xz, b.t()),
            "bf16 thin, then y": lambda x=x, w=w, xz=xz, b=b: (xz @ b.t()).addmm_(x, w.t()),
            "thin alone": lambda xz=xz, b=b: xz @ b.t(),
            "bf16 dx": lambda dy=dy, w=w: dy @ w,
            "fp8 y, rows": lambda q=xq, m=wq, r=row: scaled(*q, m, r, True),
            "fp8 y, rows, exact": lambda q=xq, m=wq, r=row: scaled(*q, m, r, False),
            "fp8 y, tensor": lambda q=xq, m=wq, o=one: scaled(q[0], o, m, o, True),
            "fp8 y, then thin": lambda q=xq, m=wq, r=row, xz=xz, b=b: scaled(*q, m, r, True).addmm_(
                xz, b.t()
            ),
            "fp8 dx, rows": lambda q=dyq, m=wt, r=ones: scaled(*q, m, r, True),
            "fp8 dx, rows, exact": lambda q=dyq, m=wt, r=ones: scaled(*q, m, r, False),
            "fp8 dx, all": lambda dy=dy, li=linear: fp8.multiply_back([dy], [li]),
        }
        yield {"projection": name, "ms": {kind: time(call) for kind, call in kinds.items()}}


def thin_products(tokens: int) -> Any:
    """The adapters' own products of the backward pass: ms, and TB/s of the wide operand."""
    import torch

    for width, rank in itertools.product((4096, 14336), (32, 64, 96)):
        wide = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16)
        factor = torch.randn(width, rank, device="cuda", dtype=torch.bfloat16) * 1e-3
        thin = torch.randn(tokens, rank, device="cuda", dtype=torch.bfloat16)
        for call, function in _thin(wide, wide.clone(), factor, factor.t().contiguous(), thin):
            ms = time(function)
            speed = round(2 * tokens * width / ms / 1e9, 2)
            yield {"width": width, "rank": rank, "call": call, "ms": ms, "tb_s": speed}


def _thin(wide: Any, changed: Any, factor: Any, turned: Any, thin: Any) -> Any:
    yield "dy @ b", lambda: wide @ factor
    yield "x @ z.t()", lambda: wide @ turned.t()
    yield "dy.t() @ xz", lambda: wide.t() @ thin
    yield "dxz.t() @ x", lambda: thin.t() @ wide
    yield "dx += dxz @ z", lambda: changed.addmm_(thin, turned)


def feed_forward(tokens: int) -> Any:
    """SwiGLU with its adapters, by tile; and the whole block, forward and backward: ms."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    from llm_engineering.model import fp8
    from llm_engineering.model.finetuning import fused_lora, swiglu, swiglu_kernels

    for rows, width, ranks, kind in (
        (300, 592, (32, 8, 20), torch.bfloat16),
        (70, 150, (4, 7, 40), torch.bfloat16),
    ):
        given = _swiglu_inputs(rows, width, ranks, kind)
        wanted = swiglu.backward(*(one.double().cpu() for one in given))
        h = swiglu_kernels.forward(*given[3:])
        found = swiglu_kernels.backward(*(one.clone() for one in given))
        yield {
            "swiglu": [rows, width, *ranks],
            "errors": [
                error(h, wanted[0]),
                *(error(a, b) for a, b in zip(found, wanted, strict=True)),
            ],
        }
    given = _swiglu_inputs(tokens, 14336, (RANK, RANK, RANK), torch.bfloat16)
    for tile in (
        (64, 128, 8),
        (64, 128, 4),
        (32, 256, 8),
        (128, 64, 8),
        (32, 128, 4),
        (64, 64, 4),
        (128, 128, 8),
    ):
        yield {
            "tile": tile,
            "forward_ms": time(lambda t=tile: swiglu_kernels.forward(*given[3:], t)),
            "backward_ms": time(lambda t=tile: swiglu_kernels.backward(*given, t)),
        }
    config = LlamaConfig(hidden_size=4096, intermediate_size=14336)
    names = ["gate_proj", "up_proj", "down_proj"]
    holder = torch.nn.ModuleDict({"mlp": LlamaMLP(config).to("cuda", torch.bfloat16)})
    for name in names:
        setattr(holder["mlp"], name, fp8.Fp8Linear(getattr(holder["mlp"], name)))
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names, init_lora_weights=False)
    mlp: Any = get_peft_model(holder, lora).base_model.model["mlp"]
    x = torch.randn(1, tokens, 4096, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    dy = torch.randn_like(x)
    plain = _gradients(mlp, x, dy)
    autograd = time(lambda: mlp(x).backward(dy))
    mlp.forward = fused_lora._feed_forward(mlp.forward).__get__(mlp)
    fused = _gradients(mlp, x, dy)
    yield {
        "autograd_ms": autograd,
        "written_out_ms": time(lambda: mlp(x).backward(dy)),
        "errors": {name: error(fused[name], plain[name]) for name in plain},
    }


def _swiglu_inputs(rows: int, width: int, ranks: tuple[int, int, int], kind: Any) -> list[Any]:
    import torch

    down, gate, up = ranks
    shapes = [(rows, width), (rows, down), (down, width), (rows, width), (rows, width)]
    shapes += [(rows, gate + up), (width, gate), (width, up)]
    return [torch.randn(shape, device="cuda", dtype=kind) for shape in shapes]


def _gradients(mlp: Any, x: Any, dy: Any) -> dict[str, Any]:
    mlp.zero_grad()
    x.grad = None
    y = mlp(x)
    y.backward(dy)
    found = {
        n.replace("_proj", "").replace(".default.weight", ""): p.grad.clone()
        for n, p in mlp.named_parameters()
        if p.grad is not None
    }
    return {"y": y.detach(), "x": x.grad.clone(), **found}


def product(quantised: Any, weight: Any) -> Any:
    """In 64 bit, of what was quantised."""
    return (quantised[0].double() * quantised[1].double()) @ weight


def error(found: Any, wanted: Any) -> float:
    """||found - wanted|| / ||wanted||."""
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    return float(f"{(found - wanted).norm() / wanted.norm():.3e}")


def time(call: Callable[[], Any]) -> float:
    """Median milliseconds."""
    from triton.testing import do_bench

    return round(do_bench(call, warmup=10, rep=50, return_mode="median"), 4)


PARTS = (card, correctness, feed_forward, quantising, transposing, products, thin_products)

if __name__ == "__main__":
    main()
