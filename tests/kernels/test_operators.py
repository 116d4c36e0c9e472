"""The compiled operators beside plain PyTorch: value, gradient and second order, float64."""

import numpy as np
import pytest
import torch

from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.kernels.choice import compiled, kernels
from forgefield.kernels.library import load
from forgefield.kernels.operators import ops
from forgefield.models.blocks.contraction import Contraction
from forgefield.models.blocks.edge_product import EdgeProduct, collect_harmonics, spread_harmonics
from forgefield.models.blocks.network import SILU_GAIN, scaled_silu

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def ragged_graph(dtype=torch.float64):
    """A molecule, a lone atom and a small periodic cell that sees its own images."""
    generator = np.random.default_rng(3)
    molecule = Structure(numbers=generator.choice([1, 6, 8], 9), positions=generator.uniform(0, 5, (9, 3)))
    lone = Structure(numbers=np.array([8]), positions=np.zeros((1, 3)))
    cell = Structure(
        numbers=np.array([6, 1]), positions=generator.uniform(0, 2, (2, 3)), cell=np.eye(3) * 3.1, pbc=np.ones(3, bool)
    )
    return build_graph([molecule, lone, cell], Needs(3.5), dtype=dtype)


def grown(parts):
    """A scalar that depends on every number in a non-linear way."""
    return sum((x.reshape(-1) * torch.linspace(0.3, 1.2, x.numel(), dtype=x.dtype)).sin().sum() for x in parts)


def edge_case(degrees, max_degree, channels):
    graph, product = ragged_graph(), EdgeProduct(degrees, max_degree)
    shapes = [
        (graph.pair_first.shape[0], len(product.paths), channels),
        (graph.n_atoms, sum(2 * l + 1 for l in degrees), channels),
        (graph.pair_first.shape[0], (max_degree + 1) ** 2),
    ]
    generator = torch.Generator().manual_seed(5)
    leaves = [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]
    return graph, product, leaves


EDGES = [([0], 3, 16), ([0, 1], 3, 24), ([0, 1, 2], 2, 7), ([1], 1, 1), ([0, 2], 4, 33), ([0, 1], 6, 8)]


@pytest.mark.parametrize(("degrees", "max_degree", "channels"), EDGES)
def test_edge_product_value_adjoint_and_both_gradients(degrees, max_degree, channels):
    graph, product, leaves = edge_case(degrees, max_degree, channels)
    found = {}
    for mode in ("plain", "auto"):
        with kernels(mode):
            assert compiled(leaves[0]) is (mode == "auto")
            spread = spread_harmonics(leaves[2], max_degree, graph)
            messages, saved = product(leaves[0], leaves[1], spread, graph)
            g = [m.sin() for m in messages]  # depends on the inputs, as in a model
            g_weights, g_features, g_parts = product.adjoint(g, saved, spread, graph, need_features=True)
            adjoint = [g_weights, g_features, collect_harmonics(g_parts, graph)]
            first = torch.autograd.grad(grown(messages), leaves, retain_graph=True)
            second = torch.autograd.grad(grown(adjoint), leaves)
        found[mode] = [*messages, *adjoint, *first, *second]
    for plain, fast in zip(found["plain"], found["auto"], strict=True):
        torch.testing.assert_close(fast, plain, **CLOSE)


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 13])
def test_edge_product_does_not_depend_on_threads_or_islands(threads):
    graph, product, leaves = edge_case([0, 1], 3, 20)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            spread = spread_harmonics(leaves[2], 3, graph)
            messages, saved = product(leaves[0], leaves[1], spread, graph)
            g_weights, g_features, g_parts = product.adjoint(messages, saved, spread, graph, need_features=True)
            adjoint = [g_weights, g_features, *g_parts]
            first = torch.autograd.grad(grown(messages), leaves, retain_graph=True)
            found.append(([*messages, *adjoint], [*first, *torch.autograd.grad(grown(adjoint), leaves)]))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found[1][1], found[0][1], **CLOSE)  # of large sines, which magnify rounding


CONTRACTIONS = [
    ([0], 3, 3, 16, False),
    ([0, 1], 3, 3, 24, False),
    ([0, 1, 2], 2, 2, 5, True),
    ([0], 2, 4, 33, False),
    ([0, 1], 2, 1, 8, False),
]


@pytest.mark.parametrize(("degrees", "max_degree", "order", "channels", "reduced"), CONTRACTIONS)
@pytest.mark.parametrize("n_elements", [1, 3])
def test_contraction_value_adjoint_and_both_gradients(degrees, max_degree, order, channels, reduced, n_elements):
    torch.manual_seed(0)
    block = Contraction(max_degree, degrees, order, channels, n_elements, reduced=reduced).double()
    species, counts = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([2, 1, 3])
    features = torch.randn(6, (max_degree + 1) ** 2, channels, dtype=torch.float64, requires_grad=True)
    leaves = [features, *block.parameters()]
    found = {}
    for mode in ("plain", "auto"):
        with kernels(mode):
            values, saved = block(features, species, counts)
            adjoint = block.adjoint(values.cos(), saved)
            first = torch.autograd.grad(grown([values]), leaves, retain_graph=True)
            second = torch.autograd.grad(grown([adjoint]), leaves)
        found[mode] = [values, adjoint, *first, *second]
    for plain, fast in zip(found["plain"], found["auto"], strict=True):
        torch.testing.assert_close(fast, plain, **CLOSE)


def test_silu_and_its_slope():
    x = torch.linspace(-30, 30, 1001, dtype=torch.float64).requires_grad_()
    found = {}
    for mode in ("plain", "auto"):
        with kernels(mode):
            value, slope = scaled_silu(x)
            losses = [grown([value]), grown([slope]), grown([value, slope])]
            found[mode] = [value, slope, *(torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses)]
    for plain, fast in zip(found["plain"], found["auto"], strict=True):
        torch.testing.assert_close(fast, plain, **CLOSE)


def test_nan_is_never_hidden():
    graph, product, leaves = edge_case([0, 1], 2, 16)
    with torch.no_grad():
        leaves[0][3, 0, 5] = float("nan")
    messages, _ = product(*leaves[:2], spread_harmonics(leaves[2], 2, graph), graph)
    assert bool(messages[0].isnan().any())
    x = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    value, slope = scaled_silu(x)
    assert value[1].isnan()
    assert slope[1].isnan()
    assert torch.isinf(value[2])


def test_shapes_and_gradients_are_registered_for_compilers():
    """`opcheck` compares schema, fake shapes and autograd registration with a real call."""
    graph, product, leaves = edge_case([0, 1], 2, 8)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    factors = (leaves[0], leaves[1], leaves[2], *product._table(graph))
    torch.library.opcheck(ops.edge_product, factors, test_utils=checks)
    g = [x.detach() for x in ops.edge_product(*factors)]
    torch.library.opcheck(ops.edge_product_adjoint, (g, *factors, True, True), test_utils=checks)
    block = Contraction(2, [0, 1], 2, 8, 2).double()
    features = torch.randn(3, 9, 8, dtype=torch.float64, requires_grad=True)
    coefficients = torch.matmul(block.expand, torch.cat(list(block.weights.values()), 1))
    given = (features, coefficients.detach().requires_grad_(), torch.tensor([0, 1, 1]), block.plan)
    torch.library.opcheck(ops.contraction, (*given, 4), test_utils=checks)
    torch.library.opcheck(ops.contraction_adjoint, (torch.randn(3, 4, 8).double(), *given, False), test_utils=checks)
    torch.library.opcheck(ops.gated, (features, SILU_GAIN), test_utils=checks)
