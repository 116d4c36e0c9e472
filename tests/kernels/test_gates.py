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
