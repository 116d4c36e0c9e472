"""Sums of features times radial functions: the C++ operator against sums over a list of edges, derivatives included."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from forgefield.kernels.library import load
from forgefield.kernels.operators import ops

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")
N = 7
RAGGED = [(0, 1), (0, 2), (1, 2), (0, 3), (2, 3), (5, 4), (4, 4)]  # 4 with its own image; 6 is alone


def table_of(pairs, n):
    """Neighbour table of pairs: sender, pair and sign (N, K), padded."""
    rows = [[] for _ in range(n)]
    for p, (first, second) in enumerate(pairs):
        rows[second].append((first, p, 1.0))
        rows[first].append((second, p, -1.0))
    width = max(map(len, rows), default=0)
    filled = [row + [(0, 0, 0.0)] * (width - len(row)) for row in rows]
    table = torch.tensor(filled, dtype=torch.float64).reshape(n, width, 3)
    return table[:, :, 0].long(), table[:, :, 1].long(), table[:, :, 2]


class Case:
    """Random factors over a ragged graph with a lone atom."""

    def __init__(self, features, width, pairs=RAGGED, n=N, dtype=torch.float64):
        torch.manual_seed(1)
        rand = lambda *shape: torch.randn(shape, dtype=dtype)  # noqa: E731
        self.factors = [rand(n, features * width), rand(len(pairs), 2, width), rand(len(pairs), 3)]
        self.first, self.second = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T.contiguous()
        sender, pair, sign = table_of(pairs, n)
        self.table = (sender, pair, sign.to(dtype), self.first, self.second)
        self.gradient = rand(n, 4, features * width)

    def own(self, f, r, u):
        return ops.radial_sum(f, r, u, *self.table)

    def plain(self, f, r, u):
        sender, receiver = torch.cat([self.first, self.second]), torch.cat([self.second, self.first])
        arrows = torch.cat([u, -u])
        repeats = f.shape[1] // r.shape[2]
        scalar, vector = torch.cat([r, r]).repeat(1, 1, repeats).unbind(1)
        edges = torch.cat(
            [(f[sender] * scalar).unsqueeze(1), (f[sender] * vector).unsqueeze(1) * arrows[:, :, None]], 1
        )
        return f.new_zeros(f.shape[0], 4, f.shape[1]).index_add(0, receiver, edges)


CASES = [(1, 16), (3, 16), (2, 5), (1, 1)]


@pytest.mark.parametrize(("features", "width"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_both_derivatives(features, width, dtype):
    case = Case(features, width, dtype=dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    found = []
    for function in (case.own, case.plain):
        factors = [x.clone().requires_grad_() for x in case.factors]
        gradient = case.gradient.clone().requires_grad_()
        out = function(*factors)
        first = torch.autograd.grad(out, factors, gradient, create_graph=True)
        loss = sum((g * torch.cos(g.detach() * 3 + 1)).sum() for g in first)
        found.append([out, *first, *torch.autograd.grad(loss, [*factors, gradient])])
    for own, plain in zip(*found, strict=True):
        assert float((own - plain).detach().abs().max()) < tolerance * max(1.0, float(plain.detach().abs().max()))


def test_derivatives_are_finite_differences():
    case = Case(2, 3)
    factors = [x.requires_grad_() for x in case.factors]
    assert gradcheck(case.own, factors)
    assert gradgradcheck(case.own, factors)


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 2)])
def test_derivatives_by_some_factors_only(which):
    """As in the first pass of a network, whose features do not depend on positions."""
    case = Case(2, 16)
    found = []
    for function in (case.own, case.plain):
        factors = [x.clone().requires_grad_(k in which) for k, x in enumerate(case.factors)]
        wanted = [factors[k] for k in which]
        gradient = case.gradient.clone().requires_grad_()
        first = torch.autograd.grad(function(*factors), wanted, gradient, create_graph=True)
        found.append([*first, *torch.autograd.grad(sum((g**3).sum() for g in first), gradient)])
    for own, plain in zip(*found, strict=True):
        assert torch.allclose(own, plain, rtol=1e-11, atol=1e-11)


def test_no_pairs_and_wrong_sizes():
    case = Case(2, 4, pairs=[])
    assert float(case.own(*case.factors).abs().sum()) == 0
    case = Case(2, 4)
    f, r, u = case.factors
    with pytest.raises(RuntimeError, match="do not go with"):
        case.own(f[:, :-1], r, u)
    with pytest.raises(RuntimeError, match="sizes differ"):
        case.own(f, r, u[:-1])
