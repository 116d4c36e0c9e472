"""Sums of features times weights times harmonics: the C++ operator against a list of edges, derivatives too."""

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


def terms_of(width, channels, state):
    """What is summed: first columns of sum, feature, weight, the harmonic (-1: none), whether odd, channels."""
    total = sum(channels)
    terms, out, moved, column = [(0, 0, 0, -1, 0, width)] if width else [], width, width + total, width
    for l, c in enumerate(channels):
        for m in range(2 * l + 1):
            terms.append((out + m * c, column, column, l * l + m, l % 2, c))
            if state:
                terms.append((out + m * c, moved + m * c, column + total, -1, 0, c))
        out, moved, column = out + (2 * l + 1) * c, moved + (2 * l + 1) * c, column + c
    return terms, moved if state else width + total, width + (1 + state) * total, out


class Case:
    """Random factors over a ragged graph with a lone atom."""

    def __init__(self, width, channels, state=True, pairs=RAGGED, n=N, dtype=torch.float64):
        torch.manual_seed(2)
        rand = lambda *shape: torch.randn(shape, dtype=dtype)  # noqa: E731
        self.terms, n_features, n_weights, n_out = terms_of(width, channels, state)
        n_harmonics = len(channels) ** 2
        self.factors = [rand(n, n_features), rand(len(pairs), n_weights), rand(len(pairs), n_harmonics)]
        self.pairs = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        sender, pair, sign = table_of(pairs, n)
        ends = [x.contiguous() for x in self.pairs.T]
        self.table = (
            sender,
            pair,
            sign.to(dtype),
            *ends,
            [width, int(state), *(x for part in enumerate(channels) for x in part)],
        )
        self.gradient = rand(n, n_out)

    def own(self, f, w, y):
        return ops.neighbour_sum(f, w, y, *self.table)

    def plain(self, f, w, y):
        first, second = self.pairs.T
        pieces = []
        for sender, receiver, sign in ((first, second, 1.0), (second, first, -1.0)):
            columns = {}
            for o, a, b, k, odd, c in self.terms:
                h = 1.0 if k < 0 else (sign if odd else 1.0) * y[:, k : k + 1]
                part = f[sender, a : a + c] * w[:, b : b + c] * h
                columns[o] = columns[o] + part if o in columns else part
            edges = torch.cat([columns[o] for o in sorted(columns)], 1)
            pieces.append(torch.zeros_like(self.gradient).index_add(0, receiver, edges))
        return pieces[0] + pieces[1]


def derivatives(case, function, which=(0, 1, 2)):
    """Value, first derivatives, and those of a function of them by everything."""
    factors = [x.clone().requires_grad_(k in which) for k, x in enumerate(case.factors)]
    wanted = [factors[k] for k in which]
    gradient = case.gradient.clone().requires_grad_()
    out = function(*factors)
    first = torch.autograd.grad(out, wanted, gradient, create_graph=True)
    loss = sum((g * torch.cos(g.detach() * 3 + 1)).sum() for g in first)
    second = torch.autograd.grad(loss, [*wanted, gradient], materialize_grads=True)
    return [out, *first, *second]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize(
    ("width", "channels"), [(3, (2, 1, 4)), (16, (8, 16)), (70, (33, 17, 9, 2)), (0, (64,)), (5, (1, 2, 3, 4, 20))]
)
def test_derivatives_up_to_the_second(width, channels, state, dtype):
    case = Case(width, channels, state, dtype=dtype)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    for own, plain in zip(derivatives(case, case.own), derivatives(case, case.plain), strict=True):
        assert float((own - plain).detach().abs().max()) < tolerance * max(1.0, float(plain.detach().abs().max()))


def test_derivatives_are_finite_differences():
    case = Case(2, (1, 2))
    factors = [x.requires_grad_() for x in case.factors]
    assert gradcheck(case.own, factors)
    assert gradgradcheck(case.own, factors)


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_derivatives_by_some_factors_only(which):
    """As in the first block of a network, whose features do not depend on positions."""
    case = Case(4, (16, 3))
    for own, plain in zip(derivatives(case, case.own, which), derivatives(case, case.plain, which), strict=True):
        assert torch.allclose(own, plain, rtol=1e-11, atol=1e-11)


def test_no_pairs_and_wrong_sizes():
    case = Case(2, (4, 1), pairs=[])
    assert float(case.own(*case.factors).abs().sum()) == 0
    case = Case(2, (4, 1))
    f, w, y = case.factors
    with pytest.raises(RuntimeError, match="do not fit the layout"):
        case.own(f[:, :-1], w, y)
    with pytest.raises(RuntimeError, match="sizes differ"):
        case.own(f, w, y[:-1])
    with pytest.raises(RuntimeError, match="degrees up to 4"):
        ops.neighbour_sum(f, w, y, *case.table[:-1], [2, 1, 5, 4])
