"""The best factors of a matrix."""

import pytest
import torch

from llm_engineering.initialisations.low_rank import best_factors


@pytest.mark.parametrize(("rank", "scaling"), [(4, 1.0), (16, 0.25), (40, 2.0)])
def test_no_factors_of_that_rank_come_nearer(rank, scaling):
    torch.manual_seed(0)
    matrix = torch.randn(60, 40)
    a, b = best_factors(matrix, rank, scaling)
    assert (a.shape, b.shape) == ((rank, 40), (60, rank))
    left = torch.linalg.norm(matrix - scaling * b @ a)
    unreachable = torch.linalg.svdvals(matrix)[rank:].norm()  # Eckart and Young
    assert left == pytest.approx(unreachable.item(), rel=1e-3, abs=1e-3)
    assert torch.linalg.norm(a) == pytest.approx(torch.linalg.norm(b).item(), rel=1e-3)
