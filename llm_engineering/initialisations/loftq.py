"""LoftQ: the adapter starts at what quantisation took from the weights.

With ``Q`` for what is in memory in place of the weight ``W``, ``s B A`` starts at the best
approximation of ``W - Q`` of rank r instead of at zero, so that training begins nearer the 16-bit
model (arXiv 2310.08659, algorithm 1 with one step). ``Q`` is never changed: switching the adapter
off gives the quantised base model, and the adapter is an ordinary one of that. PEFT's
``replace_lora_weights_loftq`` does the same for a scaling of 1 only, on CUDA only, and by whole
decompositions.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from llm_engineering.errors import LoraError
from llm_engineering.initialisations.adapted_modules import adapted_modules
from llm_engineering.initialisations.initialisation import Beginning, Initialisation
from llm_engineering.initialisations.low_rank import factors_of_each


class LoftQ(Initialisation):
    """Set once, before the first step; what follows is an ordinary training."""

    name: ClassVar[str] = "loftq"
    reads_weights: ClassVar[bool] = True
    belongs_to_quantised: ClassVar[bool] = True

    def begin(self, model: Any, beginning: Beginning) -> None:
        """Set a fresh adapter to what the quantised weights lack; the first process's is everyone's.

        Raises:
            LoraError: The files lack a weight, or hold it in another shape.
        """
        import torch
        from safetensors import safe_open

        if beginning.checkpoint is not None:
            return
        base = model.get_base_model()  # its modules are named as in the files
        factors = None
        if self.peers.is_first():
            with ExitStack() as stack:
                paths = beginning.weight_files()
                files = [stack.enter_context(safe_open(f, framework="pt")) for f in paths]
                places = {name: file for file in files for name in file.keys()}  # noqa: SIM118
                folder = paths[0].parent
                factors = factors_of_each(
                    base,
                    lambda name, layer: _error(name, layer, folder, places),
                    seed=beginning.seed,
                )
        factors = self.peers.as_the_first_says(factors)
        with torch.no_grad():
            for name, layer, adapter in adapted_modules(base):
                a, b = factors[name]
                layer.lora_A[adapter].weight.copy_(a)
                layer.lora_B[adapter].weight.copy_(b)


def _error(name: str, layer: Any, folder: Path, places: dict[str, Any]) -> Any:
    """What quantisation took from a module's weight, in 32 bit on its device.

    Args:
        name: Of the module, as in the files.
        layer: The module.
        folder: Of the files.
        places: The open file of each tensor in them.
    """
    from peft.utils.integrations import dequantize_module_weight

    original = f"{name}.weight"
    if original not in places:
        raise LoraError(
            f"lora.init: loftq compares each weight with the 16-bit one, and the files in "
            f"{folder} hold no {original}; choose default or gaussian"
        )
    quantised = dequantize_module_weight(layer.get_base_layer()).detach().float()
    whole = places[original].get_tensor(original).to(quantised)
    if whole.shape != quantised.shape:
        raise LoraError(
            f"lora.init: loftq compares each weight with the 16-bit one, and {original} in "
            f"{folder} has the shape {tuple(whole.shape)}, not {tuple(quantised.shape)}; "
            "are these weights quantised on disk? name the 16-bit model as model.id"
        )
    return whole - quantised
