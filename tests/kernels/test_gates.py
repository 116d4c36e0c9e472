"""SiLU of layer norms and gated sums: the C++ operators against plain PyTorch, both derivatives included."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from forgefield.kernels.library import load
from forgefield.kernels.operators import ops

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")
WIDTHS = [2, 5, 16, 67]


def plain_norm(x, weight, bias):
    return torch.nn.functional.silu(torch.nn.functional.layer_norm(x, weight.shape, weight, bias))


def plain_sum(edge, nodes, weight, source, target):
    send, take, value = nodes.chunk(3, 1)
    m = edge + send[source] + take[target]
    gate = torch.sigmoid(m) * weight
    both = torch.cat([gate * value[source], gate], 1)
    return nodes.new_zeros(nodes.shape[0], both.shape[1]).index_add(0, target, both), m


def rows(count, width, dtype=torch.float64):
    torch.manual_seed(width)
    return [torch.randn(*s, dtype=dtype).requires_grad_() for s in ((count, width), (width,), (width,))]


def graph(n, count, width, dtype=torch.float64):
    """Two parts that share no node, each in an order of its own, and a node without edges."""
    torch.manual_seed(width)
    half = n // 2
    ends = [torch.cat([torch.randint(0, half, (count,)), torch.randint(half, n - 1, (count,))]) for _ in range(2)]
    shapes = ((2 * count, width), (n, 3 * width), (2 * count, 1))
    return [torch.randn(*s, dtype=dtype).requires_grad_() for s in shapes], ends


def gradients(function, inputs, second):
    """Of a force-like loss: the gradient by the first input is differentiated by all of them."""
    out = function(*inputs)
    total = sum((t * torch.cos(torch.arange(t.numel(), dtype=t.dtype)).reshape(t.shape)).sum() for t in out)
    if not second:
        return torch.autograd.grad(total, inputs)
    first = torch.autograd.grad(total, inputs[: 1 if len(out) == 1 else 3], create_graph=True)
    return torch.autograd.grad(sum((g**2).sum() for g in first) + total, inputs)


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [0, 3, 1300])
def test_norm(count, width, second):
    inputs = rows(count, width)
    found = gradients(lambda *x: (ops.norm_silu(*x),), inputs, second)
    wanted = gradients(lambda *x: (plain_norm(*x),), inputs, second)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max() if b.numel() else 1.0))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_sum(width, second, keep):
    inputs, ends = graph(41, 700, width)
    found = gradients(
        lambda *x: ops.gated_sum(*x, *ends, keep)[: 1 + keep] + (inputs[0][:0],) * (1 - keep), inputs, second
    )
    wanted = gradients(lambda *x: plain_sum(*x, *ends)[: 1 + keep] + (inputs[0][:0],) * (1 - keep), inputs, second)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


def plain_layer(y, matrix, bias, nodes, weight, norm_weight, norm_bias, source, target, place, keep):
    if not len(matrix):
        y, before = (part[place] for part in y.chunk(2, 1))
    else:
        before = y @ matrix.T + bias
    sums, m = plain_sum(before, nodes, weight, source, target)
    return sums, y + plain_norm(m, norm_weight, norm_bias)


def layer(n, count, width, shared, dtype=torch.float64):
    """The inputs of a layer; `shared`: two edges have a row in common."""
    (edge, nodes, weight), (source, target) = graph(n, count, width, dtype)
    if shared:
        order = torch.argsort(target)  # sources then belong to one half or the other
        source, target = source[order], target[order]
    some = [torch.randn(*s, dtype=dtype) for s in ((width, width), (width,), (width,), (width,))]
    some = [some[0] * width**-0.5, some[1], some[2] + 1.0, some[3]]
    place = torch.arange(2 * count) // 2 if shared else torch.zeros(0, dtype=torch.int64)
    if shared:  # sometimes with a row that no edge has
        edge, some[:2] = torch.randn(count + count % 4 // 2, 2 * width, dtype=dtype), [torch.zeros(0, dtype=dtype)] * 2
    inputs = [t.detach().requires_grad_(t.shape != (0,)) for t in (edge, *some[:2], nodes, weight, *some[2:])]
    return inputs, (source, target, place)


def layer_gradients(function, inputs, ends, keep, second):
    """Of a loss of the results and of their gradients by features and weights, as a loss of forces is."""
    wanted = [t for t in inputs if t.requires_grad]
    out = function(*inputs, *ends, keep)[: 1 + keep]
    total = sum((t * torch.cos(torch.arange(t.numel(), dtype=t.dtype)).reshape(t.shape)).sum() for t in out)
    if not second:
        return torch.autograd.grad(total, wanted, materialize_grads=True)
    first = torch.autograd.grad(total, [inputs[k] for k in (0, 3, 4)], create_graph=True)
    loss = sum((g**2 * torch.sin(torch.arange(g.numel(), dtype=g.dtype)).reshape(g.shape)).sum() for g in first)
    return torch.autograd.grad(loss + total, wanted, materialize_grads=True)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("n", "count", "width"), [(41, 1300, 8), (41, 70, 32), (9, 0, 16), (300, 170, 64), (13, 60, 128)]
)
def test_layer(n, count, width, shared, second, keep):
    inputs, ends = layer(n, count, width, shared)
    found = layer_gradients(ops.gated_layer, inputs, ends, keep, second)
    wanted = layer_gradients(plain_layer, inputs, ends, keep, second)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max() if b.numel() else 1.0))


def test_finite_differences():
    x, weight, bias = rows(3, 4)
    assert gradcheck(ops.norm_silu, (x, weight, bias))
    assert gradgradcheck(lambda x: ops.norm_silu(x, weight.detach(), bias.detach()), (x,))
    inputs, ends = graph(9, 6, 2)
    assert gradcheck(lambda *x: ops.gated_sum(*x, *ends, True), inputs)
    assert gradgradcheck(lambda *x: ops.gated_sum(*x, *ends, True), inputs)


def test_single_precision():
    inputs = rows(700, 64, torch.float32)
    assert torch.allclose(ops.norm_silu(*inputs), plain_norm(*inputs), rtol=1e-5, atol=2e-6)
    inputs, ends = graph(41, 700, 64, torch.float32)
    for a, b in zip(ops.gated_sum(*inputs, *ends, True), plain_sum(*inputs, *ends), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-4)


def test_edges_out_of_the_graph_are_refused():
    inputs, (source, target) = graph(9, 6, 2)
    with pytest.raises(RuntimeError, match="leads out of the graph"):
        ops.gated_sum(*inputs, source, target + 9, False)


def table(nodes, width):
    torch.manual_seed(width)
    return torch.randn(nodes, width, dtype=torch.float64).requires_grad_()


def plain_lookup(x, rows, low, rate):
    """Lagrange's polynomials through eight nodes, written out."""
    at = (x[:, 0] - low) * rate
    first = (at.detach().floor().long() - 3).clamp(0, len(rows) - 8)
    total = 0.0
    for k in range(8):
        factors = [(at - first - j) / (k - j) for j in range(8) if j != k]
        total = total + torch.stack(factors).prod(0).unsqueeze(1) * rows[first + k]
    return total


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(("count", "width"), [(5, 3), (3000, 16)])
def test_table(count, width, second):
    rows_ = table(21, width)
    x = (torch.rand(count, 1, dtype=torch.float64) * 3.2 - 1.6).requires_grad_()

    def losses(function):
        y = function(x, rows_, -1.5, 7.0)
        total = (y * torch.cos(torch.arange(y.numel(), dtype=y.dtype)).reshape(y.shape)).sum()
        if not second:
            return torch.autograd.grad(total, (x, rows_))
        (slope,) = torch.autograd.grad(total, x, create_graph=True)
        return torch.autograd.grad((slope**2).sum() + total, (x, rows_))

    for a, b in zip(losses(ops.interpolate), losses(plain_lookup), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-9 * float(b.abs().max()))


def test_table_by_finite_differences():
    rows_, x = table(12, 2), torch.tensor([[-0.93], [0.2], [0.71]], dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda *a: ops.interpolate(*a, -1.1, 5.0), (x, rows_))
    assert gradgradcheck(lambda *a: ops.interpolate(*a, -1.1, 5.0), (x, rows_))
    inputs, ends = layer(9, 6, 8, False)
    fixed = [inputs[k].detach() for k in (1, 2, 5, 6)]
    run = lambda y, nodes, weight: ops.gated_layer(y, *fixed[:2], nodes, weight, *fixed[2:], *ends, True)  # noqa: E731
    assert gradcheck(run, (inputs[0], inputs[3], inputs[4]))
    assert gradgradcheck(run, (inputs[0], inputs[3], inputs[4]))
