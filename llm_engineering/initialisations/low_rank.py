"""The best approximation of a matrix by an adapter of rank r, for one matrix or each of a model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_engineering.initialisations.adapted_modules import adapted_modules

# Of the randomised decomposition: PEFT's "pissa_niter_16", and what Halko et al. (arXiv 0909.4061,
# section 4.2) advise to look for beyond what is wanted. Of a 2,048 x 2,048 matrix it takes a fifth of
# the time of the whole one.
_ITERATIONS, _OVERSAMPLED = 16, 10


def best_factors(matrix: Any, rank: int, scaling: float) -> tuple[Any, Any]:
    """A (rank x in) and B (out x rank) with ``scaling * B A`` as near ``matrix`` as rank r allows.

    By its ``rank`` largest singular values (Eckart and Young), the root of each in both factors.

    Args:
        matrix: out x in, in 32 bit. Random numbers are PyTorch's own of its device.
        rank: Of the factors.
        scaling: What the adapter multiplies ``B A`` by.
    """
    import torch

    looked_for = min(rank + _OVERSAMPLED, *matrix.shape)
    u, s, v = torch.svd_lowrank(matrix, q=looked_for, niter=_ITERATIONS)
    root = (s[:rank] / scaling).sqrt()
    return root[:, None] * v[:, :rank].T, u[:, :rank] * root


def factors_of_each(
    model: Any, matrix: Callable[[str, Any], Any], *, seed: int
) -> dict[str, tuple[Any, Any]]:
    """A and B for every adapted module, by its name; in 32 bit on the CPU.

    Args:
        model: With an adapter.
        matrix: Called with a module's name and itself; what the adapter is to be (out x in, 32 bit).
        seed: Of the randomised decompositions; the random state is left as it was.
    """
    import torch

    factors = {}
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for name, layer, adapter in adapted_modules(model):
            a, b = best_factors(matrix(name, layer), layer.r[adapter], layer.scaling[adapter])
            factors[name] = a.cpu(), b.cpu()
    return factors
