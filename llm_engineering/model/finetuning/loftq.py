"""LoftQ: the adapter starts at what quantisation took from the weights.

With ``Q`` for what is in memory in place of the weight ``W``, ``s B A`` starts at the best
approximation of ``W - Q`` of rank r instead of at zero, so that training begins nearer the 16-bit
model (arXiv 2310.08659, algorithm 1 with one step). ``Q`` is never changed: switching the adapter
off gives the quantised base model, and the adapter is an ordinary one of that. PEFT's
``replace_lora_weights_loftq`` does the same for a scaling of 1 only, on CUDA only, and by whole
decompositions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llm_engineering.distributed import world
from llm_engineering.errors import LoraError
from llm_engineering.model.base_model import weight_files
from llm_engineering.model.finetuning.inject import adapted_modules
from llm_engineering.model.finetuning.low_rank import best_factors

_PREFIX = "base_model.model."


def start_from_quantisation_error(model: Any, folder: Path, *, seed: int) -> None:
    """Set a PEFT model's fresh adapter to what its quantised weights lack.

    Args:
        model: With an adapter.
        folder: Of the base model's weights as they were, in safetensors.
        seed: Of the randomised decomposition; every rank takes the first's result.

    Raises:
        LoraError: The files lack a weight, or hold it in another shape.
    """
    import torch

    found = dict(_factors(model, folder, seed)) if world.is_first() else None
    factors = world.as_the_first_says(found)
    with torch.no_grad():
        for name, layer, adapter in adapted_modules(model):
            a, b = factors[name]
            layer.lora_A[adapter].weight.copy_(a)
            layer.lora_B[adapter].weight.copy_(b)


def _factors(model: Any, folder: Path, seed: int) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Each adapted module's name and its two factors, on the CPU."""
    import torch
    from peft.utils.integrations import dequantize_module_weight
    from safetensors import safe_open

    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        torch.manual_seed(seed)
        files = [stack.enter_context(safe_open(f, framework="pt")) for f in weight_files(folder)]
        places = {name: file for file in files for name in file.keys()}  # noqa: SIM118
        for name, layer, adapter in adapted_modules(model):
            original = name.removeprefix(_PREFIX) + ".weight"
            if original not in places:
                raise LoraError(
                    f"lora.init: loftq compares each weight with the 16-bit one, and the files in "
                    f"{folder} hold no {original}; choose default or gaussian"
                )
            quantised = dequantize_module_weight(layer.get_base_layer()).float()
            whole = places[original].get_tensor(original).to(quantised)
            if whole.shape != quantised.shape:
                raise LoraError(
                    f"lora.init: loftq compares each weight with the 16-bit one, and {original} in "
                    f"{folder} has the shape {tuple(whole.shape)}, not {tuple(quantised.shape)}; "
                    "are these weights quantised on disk? name the 16-bit model as model.id"
                )
            a, b = best_factors(whole - quantised, layer.r[adapter], layer.scaling[adapter])
            yield name, (a.cpu(), b.cpu())
