"""Angles looked up in a table: as near to the networks themselves as single precision can tell."""

import pytest
import torch

from forgefield.kernels.choice import kernels
from forgefield.kernels.library import load
from forgefield.models.architectures.alignn.layers import Edges, GatedSum, Gaussians, Layer, Table

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")


def networks(count: int, factor: float):
    """What angles pass through before the first gates, with weights `factor` times as large as fresh ones."""
    torch.manual_seed(count)
    gaussians, layers = Gaussians(-1.0, 1.0, count), torch.nn.Sequential(Layer(count, 64), Layer(64, 64))
    gates = GatedSum(64, 1.0, False)
    for parameter in layers.parameters():
        parameter.data.mul_(factor)
    return gaussians, lambda x: gates.joined(layers(gaussians(x)))


def derivatives(function, x, weights):
    """Values, slopes and curvatures, and a parameter-like second derivative."""
    y = function(x)
    (slope,) = torch.autograd.grad((y * weights).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    return y, slope, bend


@pytest.mark.parametrize("factor", [1.0, 4.0])
@pytest.mark.parametrize("count", [20, 40, 80])
def test_a_table_is_as_good_as_the_networks(count, factor):
    gaussians, function = networks(count, factor)
    table = Table(gaussians)
    x = torch.linspace(-1.0, 1.0, 3 * table.count).unsqueeze(1).requires_grad_()
    weights = torch.randn(128)
    exact = derivatives(function, x.detach().double().requires_grad_(), weights.double())
    looked_up = derivatives(lambda x: table(function, x), x, weights)
    assert not torch.equal(looked_up[0], function(x))  # it was looked up
    for found, wanted, most in zip(looked_up, exact, (3e-7, 1e-6, 1e-5), strict=True):
        assert (found - wanted).abs().max() < most * wanted.abs().max()


def test_few_numbers_and_double_precision_are_not_looked_up():
    gaussians, function = networks(40, 1.0)
    table = Table(gaussians)
    for x in (torch.rand(100, 1), torch.rand(3 * table.count, 1, dtype=torch.float64)):
        assert torch.equal(table(function, x), function(x))


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("width", [4, 8, 12, 16, 24, 64])
def test_layers_of_any_width_agree_with_plain_pytorch(width, common):
    """Rows that do not fill vectors take the older operators; features that edges have in common are twice as wide."""
    torch.manual_seed(width)
    n, e = 7, 40
    layer = GatedSum(width, 1.0, False)
    edges = Edges(torch.randint(n, (e,)), torch.randint(n, (e,)).sort().values, torch.rand(e, 1))
    x, y, place = torch.randn(n, width), torch.randn(11 if common else e, width), None
    if common:
        y, place = layer.joined(y).detach(), torch.randint(11, (e,))
    found = layer(x, y, edges, place)
    with kernels("plain"):
        plain = layer(x, y, edges, place)
    for one, other in zip(found, plain, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-5)
