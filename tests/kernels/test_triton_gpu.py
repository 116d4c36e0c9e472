"""The Triton kernels on a CUDA device: each operator against C++, and the whole potential against plain PyTorch."""

import numpy as np
import pytest
import torch

from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.kernels.choice import compiled, describe, kernels
from forgefield.kernels.library import load
from forgefield.kernels.operators import ops
from forgefield.models.architectures.mace.settings import MaceSettings
from forgefield.models.potential import build_potential

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}  # of the largest element


def on(device, x):
    if isinstance(x, torch.Tensor):
        return x.to(device)
    return [on(device, part) for part in x] if isinstance(x, list | tuple) and not is_degrees(x) else x


def is_degrees(x):
    return len(x) > 0 and all(isinstance(part, int) for part in x)


@pytest.fixture(scope="module", autouse=True)
def ready():
    assert describe(torch.device("cuda")).startswith("Triton")
    assert compiled(torch.zeros(1, device="cuda"))


@pytest.mark.skipif(load().path is None, reason="no C++ operators to compare with")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    ("degrees", "max_degree", "channels"), [([0], 3, 128), ([0, 1], 3, 33), ([0, 1, 2], 3, 70), ([0, 2], 4, 5)]
)
def test_edge_product(degrees, max_degree, channels, dtype, EdgeCase, same):
    case = EdgeCase(degrees, max_degree, channels, dtype=dtype)
    given = {
        ops.edge_product: (*case.factors, *case.table),
        ops.edge_product_adjoint: (case.g, *case.factors, *case.table, True, True),
        ops.edge_product_second: (case.g, *case.factors, *case.directions, *case.table, True, True),
    }
    for operator, inputs in given.items():
        same(operator(*on("cuda", inputs)), operator(*inputs), TOLERANCE[dtype])


@pytest.mark.skipif(load().path is None, reason="no C++ operators to compare with")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("degrees", "correlation", "channels"), [([0, 1], 3, 128), ([0], 3, 33), ([0, 1], 2, 5)])
def test_contraction(degrees, correlation, channels, dtype, contraction_case, same):
    x, c, g, v, sets, plan = contraction_case(3, degrees, correlation, channels, dtype=dtype)
    given = {
        ops.contraction: (x, c, sets, plan, g.shape[1]),
        ops.contraction_adjoint: (g, x, c, sets, plan, True),
        ops.contraction_second: (g, x, c, v, sets, plan),
    }
    for operator, inputs in given.items():
        same(operator(*on("cuda", inputs)), operator(*inputs), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_gated(dtype, same):
    x, g, d = torch.randn((3, 37, 65), dtype=torch.float64, device="cuda").to(dtype)
    for ours, plain in zip(silu("auto", x, g, d), silu("plain", x, g, d), strict=True):
        same(ours.contiguous(), plain.cpu(), TOLERANCE[dtype])


def silu(choice, x, g, d):
    from forgefield.models.blocks.network import scaled_silu

    x = x.clone().requires_grad_()
    with kernels(choice):
        value, slope = scaled_silu(x)
        (by_x,) = torch.autograd.grad((value * g + slope * d).sum(), x)
    return value.detach(), slope.detach(), by_x


# -- through the whole potential ---------------------------------------------------------------------------------


def structures():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    cell = np.array([[2.9, 0.0, 0.0], [0.7, 3.1, 0.0], [-0.4, 0.5, 3.3]])  # atoms see images of themselves
    return [
        Structure(rng.choice([1, 6, 8], 11), grid[:11] * 1.3 + rng.normal(0, 0.1, (11, 3))),
        Structure(np.array([6]), np.zeros((1, 3))),
        Structure(np.array([14, 8]), np.array([[0.1, 0.0, 0.2], [1.6, 1.4, 1.8]]), cell, np.ones(3, bool)),
    ]


def run(potential, graph, choice):
    """Energies, forces, stress, and the gradients by the parameters of a loss on all of them."""
    potential.zero_grad()
    with kernels(choice):
        out = potential(graph)
        loss = out.energy.square().sum() + out.forces.square().sum()
        loss.backward()
    grads = {name: p.grad.clone() for name, p in potential.named_parameters() if p.grad is not None}
    return out.energy.detach(), out.forces.detach(), out.stress.detach(), grads


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("irreps", ["32x0e", "33x0e + 33x1o", "16x0e + 16x1o + 16x2e"])
def test_potential(irreps, dtype, same):
    settings = MaceSettings(hidden_irreps=irreps, max_ell=3, radial_mlp=[16, 16], r_max=4.0)
    energies = {"default": {1: -1.0, 6: -2.0, 8: -3.0, 14: -4.0}}
    potential = build_potential(
        "mace", settings, elements=[1, 6, 8, 14], heads=("default",), reference_energies=energies,
        avg_num_neighbors=8.0, scale=[1.0], shift=[0.0], dtype=dtype, seed=3,
    ).to("cuda")  # fmt: skip
    graph = build_graph(structures(), potential.needs, dtype=dtype, device="cuda")
    ours, plain = run(potential, graph, "auto"), run(potential, graph, "plain")
    tolerance = 100 * TOLERANCE[dtype]
    for one, other in zip(ours[:3], plain[:3], strict=True):
        same(one.contiguous(), other.cpu(), tolerance)
    assert ours[3].keys() == plain[3].keys()
    assert len(ours[3]) == sum(1 for _ in potential.named_parameters())
    for name, one in ours[3].items():
        same(one.contiguous(), plain[3][name].cpu(), tolerance)
    again = run(potential, graph, "auto")
    assert torch.equal(again[1], ours[1])  # no atomics: to the last bit
