"""PiSSA: training moves the weights' principal directions; what it leaves is an ordinary adapter.

A fresh adapter is ``W x + s B A x`` with ``B = 0``. Here ``s B0 A0`` is the best approximation of
``W`` of rank r, ``W - s B0 A0`` takes the place of ``W``, and ``B A`` starts at ``B0 A0``: the same
output, and the directions that matter most are trained (arXiv 2404.02948, section 3). Afterwards
``W`` is put back, and the adapter becomes ``s (B A - B0 A0)``, of rank 2r, on the base model as it
was: switching it off gives the base model, and any reader of PEFT's format can use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from llm_engineering.initialisations.adapted_modules import adapted_modules
from llm_engineering.initialisations.initialisation import Beginning, Initialisation
from llm_engineering.initialisations.kept_tensors import KeptTensors
from llm_engineering.initialisations.low_rank import factors_of_each
from llm_engineering.peers import ALONE, Peers


class Pissa(Initialisation):
    """The first factors of every target of a model, and the weights that they were taken from.

    A checkpoint's adapter means nothing without its copy of the factors.
    """

    name: ClassVar[str] = "pissa"
    reads_weights: ClassVar[bool] = True
    rank_factor: ClassVar[int] = 2
    changes_at_end: ClassVar[bool] = True
    keeps_weights: ClassVar[bool] = True
    can_be_sharded: ClassVar[bool] = False

    def __init__(self, folder: Path, peers: Peers = ALONE) -> None:
        super().__init__(folder, peers)
        self._factors = KeptTensors(folder, "principal_components.safetensors", peers)
        self._weights: dict[str, Any] = {}
        self._initial: dict[str, Any] = {}

    def begin(self, model: Any, beginning: Beginning) -> None:
        """Start the adapter from its weights' principal components.

        The weights, in 16 or 32 bit, are kept in host memory as they were until ``finish``. A
        checkpoint's factors are taken instead of the model's own, since another machine's need not
        be the same bits.
        """
        import torch

        if self.peers.is_first():
            if beginning.checkpoint is not None:
                self._factors.restore_from(beginning.checkpoint)
            else:
                self._factors.write(_decompose(model, beginning.seed))
        self._initial = self._factors.read()
        for name, layer, adapter in adapted_modules(model):
            weight = layer.get_base_layer().weight
            a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
            first_a, first_b = self._initial[f"{name}.A"].to(a), self._initial[f"{name}.B"].to(b)
            with torch.no_grad():
                if beginning.checkpoint is None:
                    a.copy_(first_a)
                    b.copy_(first_b)
                principal = layer.scaling[adapter] * (first_b.float() @ first_a.float())
                self._weights[name] = weight.data.cpu()
                weight.data = (weight.float() - principal).to(weight.dtype)

    def add_to(self, checkpoint: Path) -> None:
        """Add the factors."""
        self._factors.add_to(checkpoint)

    def finish(self, model: Any) -> None:
        """Put the weights back, and make of the adapter what training changed in them."""
        import torch

        widen(model)
        for name, layer, adapter in adapted_modules(model):
            weight = layer.get_base_layer().weight
            weight.data = self._weights.pop(name).to(weight.device)
            with torch.no_grad():
                first_a, first_b = self._initial[f"{name}.A"], self._initial[f"{name}.B"]
                layer.lora_A[adapter].weight[len(first_a) :] = first_a
                layer.lora_B[adapter].weight[:, len(first_a) :] = -first_b

    @classmethod
    def fit_saved_weights(cls, model: Any) -> None:
        """Double the rank."""
        widen(model)


def widen(model: Any) -> None:
    """Double the rank of a PEFT model's adapter; what is added is zero, and the scaling stays."""
    import torch

    for _, layer, adapter in adapted_modules(model):
        a, b = layer.lora_A[adapter], layer.lora_B[adapter]
        for linear, dim in ((a, 0), (b, 1)):
            old = linear.weight.data
            wide = torch.cat([old, torch.zeros_like(old)], dim=dim)
            linear.weight = torch.nn.Parameter(wide, requires_grad=linear.weight.requires_grad)
        a.out_features = b.in_features = 2 * layer.r[adapter]
        layer.r[adapter] *= 2
        layer.lora_alpha[adapter] *= 2
    config = model.peft_config[model.active_adapter]
    config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    config.rank_pattern = {name: 2 * r for name, r in config.rank_pattern.items()}
    config.alpha_pattern = {name: 2 * alpha for name, alpha in config.alpha_pattern.items()}


def _decompose(model: Any, seed: int) -> dict[str, Any]:
    """The first factors, by ``NAME.A`` (r x in) and ``NAME.B`` (out x r), in 32 bit on the CPU."""

    def weight(_: str, layer: Any) -> Any:
        return layer.get_base_layer().weight.detach().float()

    factors = {}
    for name, (a, b) in factors_of_each(model, weight, seed=seed).items():
        factors[f"{name}.A"], factors[f"{name}.B"] = a, b
    return factors
