"""Networks with GELU or SiLU and lengths of mixed vectors: the C++ operators against PyTorch, derivatives too."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from forgefield.kernels.library import load
from forgefield.kernels.operators import ops

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")
KINDS = 3
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}


class Network:
    """Random rows and layers; the first inputs from a table where it has columns."""

    def __init__(self, rows, widths, first=0, dtype=torch.float64):
        torch.manual_seed(2)
        rand = lambda *shape: torch.randn(shape, dtype=dtype)  # noqa: E731
        self.x, self.table = rand(rows, widths[0] - first), rand(KINDS, first) if first else rand(0, 0)
        self.row = torch.arange(rows) % KINDS if first else torch.zeros(0, dtype=torch.int64)
        pairs = list(itertools.pairwise(widths))
        self.weights = [rand(i, o) / i**0.5 for i, o in pairs]
        self.biases = [rand(o) for _, o in pairs]

    def leaves(self):
        """x, table, matrices, biases, to be differentiated by."""
        return [t.clone().requires_grad_() for t in (self.x, self.table, *self.weights, *self.biases)]

    def own(self, x, table, *layers, activated, silu=False):
        n = len(self.weights)
        return ops.dense(x, table, self.row, list(layers[:n]), list(layers[n:]), activated, silu)[0]

    def plain(self, x, table, *layers, activated, silu=False):
        n, curve = len(self.weights), torch.nn.functional.silu if silu else torch.nn.functional.gelu
        x = torch.cat([table[self.row], x], 1) if len(table) else x
        for k in range(n):
            x = x @ layers[k] + layers[n + k]
            x = curve(x) if k < n - 1 or activated else x
        return x


CASES = [
    (7, (5, 4, 3), 0),
    (1, (3, 2), 0),
    (9, (7, 19, 6, 1), 4),
    (301, (40, 70, 66), 16),
    (0, (4, 3, 2), 2),
]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("activated", [True, False])
@pytest.mark.parametrize(("rows", "widths", "first"), CASES)
def test_network_and_both_derivatives(rows, widths, first, activated, silu, dtype):
    """Value, gradient by x, and the gradients by everything of a loss of both, as in training to forces."""
    case = Network(rows, widths, first, dtype)
    found = []
    for function in (case.own, case.plain):
        x, *rest = case.leaves()
        weight = torch.linspace(-1, 1, widths[-1], dtype=dtype).requires_grad_()
        y = function(x, *rest, activated=activated, silu=silu)
        (g_x,) = torch.autograd.grad((y * weight).sum(), x, create_graph=True)
        loss = torch.cos(y).sum() + (g_x * torch.sin(3 * g_x.detach())).sum()
        by = [t for t in (x, *rest, weight) if t.numel()]
        by = by if rows else [x]
        found.append([y, g_x, *torch.autograd.grad(loss, by, allow_unused=True, materialize_grads=True)])
    for own, plain in zip(*found, strict=True):
        assert own.shape == plain.shape
        if own.numel():
            assert float((own - plain).detach().abs().max()) < TOLERANCE[dtype] * (
                1 + float(plain.detach().abs().max())
            )


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("activated", [True, False])
def test_network_by_finite_differences(activated, silu):
    case = Network(4, (5, 6, 3), 2)
    leaves = case.leaves()
    assert gradcheck(lambda *all_: case.own(*all_, activated=activated, silu=silu), leaves)
    rest = [t.detach() for t in leaves[1:]]
    assert gradgradcheck(lambda x: case.own(x, *rest, activated=activated, silu=silu), leaves[:1])


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_gelu_far_from_zero(scale):
    x = (torch.linspace(-1, 1, 4001, dtype=torch.float64) * scale).unsqueeze(1)
    one, none = [torch.ones(1, 1, dtype=torch.float64)], [torch.zeros(1, dtype=torch.float64)]
    nothing = x.new_empty((0, 0)), torch.zeros(0, dtype=torch.int64)
    own = ops.dense(x, *nothing, one, none, True, False)[0]
    exact = x * 0.5 * torch.special.erfc(-x / 2**0.5)
    assert float(((own - exact).abs() / exact.abs().clamp(min=1e-280)).max()) < 1e-12
    assert torch.isnan(ops.dense(x * torch.nan, *nothing, one, none, True, False)[0]).all()


def test_network_refuses_what_does_not_fit():
    case = Network(4, (5, 6, 3), 2)
    x, table, *layers = (t.detach() for t in case.leaves())
    with pytest.raises(RuntimeError, match="rows and matrices do not fit"):
        case.own(x[:, 1:], table, *layers, activated=True)
    with pytest.raises(RuntimeError, match="no such row"):
        case.own(x, table[:1], *layers, activated=True)
    with pytest.raises(RuntimeError, match="biases do not fit"):
        case.own(x, table, *layers[:2], *layers[3:], layers[2], activated=True)


def lengths(sums, mix, n_scalar):
    """Plain PyTorch."""
    sums = sums.unflatten(2, (mix.shape[0], -1))
    vectors = torch.einsum("nxag,agh->nxah", sums[:, 1:, :, : mix.shape[1]], mix)
    return torch.cat([sums[:, 0, :, :n_scalar].flatten(1), vectors.pow(2).sum(1).flatten(1)], 1)


def sums_and_mix(shape, width, dtype=torch.float64):
    """Random factors of n atoms: A features, G' functions of vectors, H combinations."""
    torch.manual_seed(3)
    n, a, vectors, mixed = shape
    return torch.randn(n, 4, a * width, dtype=dtype), torch.randn(a, vectors, mixed, dtype=dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(
    ("shape", "n_scalar"), [((5, 3, 16, 12), 16), ((20, 2, 5, 3), 7), ((3, 1, 9, 17), 4), ((0, 2, 4, 3), 4)]
)
def test_lengths_and_both_derivatives(shape, n_scalar, dtype):
    found = []
    for function in (ops.lengths, lengths):
        sums, mix = (t.requires_grad_() for t in sums_and_mix(shape, max(n_scalar, shape[2]), dtype))
        y = function(sums, mix, n_scalar)
        weight = torch.linspace(-1, 1, y.shape[1], dtype=dtype).requires_grad_()
        (g,) = torch.autograd.grad((y * weight).sum(), sums, create_graph=True)
        loss = torch.cos(y).sum() + (g * torch.sin(3 * g.detach())).sum()
        found.append([y, g, *torch.autograd.grad(loss, [sums, mix, weight])])
    for own, plain in zip(*found, strict=True):
        assert own.shape == plain.shape
        if own.numel():
            assert float((own - plain).detach().abs().max()) < TOLERANCE[dtype] * (
                1 + float(plain.detach().abs().max())
            )


def test_lengths_by_finite_differences():
    sums, mix = (t.requires_grad_() for t in sums_and_mix((3, 2, 4, 3), 5))
    assert gradcheck(lambda s, m: ops.lengths(s, m, 5), (sums, mix))
    assert gradgradcheck(lambda s: ops.lengths(s, mix.detach(), 5), (sums,))
    with pytest.raises(RuntimeError, match="do not fit"):
        ops.lengths(sums, mix.float(), 5)
