"""Inputs of the operators for comparisons."""

from itertools import combinations

import numpy as np
import pytest
import torch

from forgefield.kernels.paths import coupling_paths, edge_plan
from forgefield.models.blocks.contraction import Contraction
from forgefield.models.blocks.coupling import clebsch_gordan


def table_of(pairs, n):
    """Neighbour table of pairs: sender, pair and sign (N, K), padded."""
    rows = [[] for _ in range(n)]
    for p, (first, second) in enumerate(pairs):
        rows[second].append((first, p, 1.0))
        rows[first].append((second, p, -1.0))
    width = max(map(len, rows), default=0)
    filled = [row + [(0, 0, 0.0)] * (width - len(row)) for row in rows]
    table = np.array(filled, dtype=np.float64).reshape(n, width, 3)
    sender, pair, sign = (torch.as_tensor(table[:, :, k]) for k in range(3))
    return sender.long(), pair.long(), sign


RAGGED = [*combinations(range(4), 2), (5, 4), (4, 4)]  # all of 0..3, one pair 5-4, 4 with its own image; 6 is alone


class EdgeCase:
    """Random factors of an edge product over a ragged graph with a lone atom."""

    def __init__(self, degrees, max_degree, channels, pairs=RAGGED, n=7, device="cpu", dtype=torch.float64):
        torch.manual_seed(0)
        paths = coupling_paths(degrees, max_degree)
        plan, values = edge_plan(degrees, max_degree, clebsch_gordan)
        rand = lambda *shape: torch.randn(shape, dtype=dtype, device=device)  # noqa: E731
        shapes = [(len(pairs), len(paths), channels), (n, sum(2 * l + 1 for l in degrees), channels),
                  (len(pairs), (max_degree + 1) ** 2)]  # fmt: skip
        self.factors = [rand(*s) for s in shapes]
        self.directions = [rand(*s) for s in shapes]
        count = [sum(p.message == l for p in paths) for l in range(max_degree + 1)]
        self.g = [rand(n, 2 * l + 1, k * channels) for l, k in enumerate(count)]
        sender, pair, sign = (t.to(device) for t in table_of(pairs, n))
        visit, plan_of, values_of = torch.arange(n), torch.as_tensor(plan), torch.as_tensor(values)
        self.table = (sender, pair, sign.to(dtype), visit.to(device), plan_of, values_of, degrees, max_degree)


def contraction_case(max_degree, degrees, correlation, channels, device="cpu", dtype=torch.float64):
    """Features, coefficients, g, direction, sets (one of them without atoms) and plan of a contraction."""
    torch.manual_seed(0)
    module = Contraction(max_degree, degrees, correlation, channels, 3)
    sets = torch.tensor([0, 0, 2, 2, 2], device=device)
    rand = lambda *shape: torch.randn(shape, dtype=dtype, device=device)  # noqa: E731
    x, v = (rand(5, (max_degree + 1) ** 2, channels) for _ in range(2))
    coefficients, g = rand(3, module.expand.shape[0], channels), rand(5, module.n_outputs, channels)
    return x, coefficients, g, v, sets, module.plan.to(device)


def same(found, expected, tolerance=1e-13):
    """Assert equal shapes, types and, relative to the largest element, values."""
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other, tolerance)
        return
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert found.is_contiguous()
    if expected.numel():
        assert float((found.cpu() - expected.cpu()).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.fixture(scope="session", name="EdgeCase")
def _edge_case():
    return EdgeCase


@pytest.fixture(scope="session", name="contraction_case")
def _contraction_case():
    return contraction_case


@pytest.fixture(scope="session", name="same")
def _same():
    return same
