"""Parts of XPaiNN: elements as overlaps of orbitals, cutoffs, softness."""

import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.integrate import quad

from forgefield.core.errors import ModelError
from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.models.architectures.xpainn.orbitals import GAUSSIANS, orbital, overlaps
from forgefield.models.architectures.xpainn.radial import cutoff_function
from forgefield.models.architectures.xpainn.settings import XpainnSettings
from forgefield.models.blocks.harmonics import SphericalHarmonics
from forgefield.models.potential import build_potential


def radial(l, exponent):
    """Normalised radial part r^l exp(-a r^2)."""
    norm = quad(lambda r: r ** (2 * l + 2) * np.exp(-2 * exponent * r * r), 0, np.inf)[0] ** -0.5
    return lambda r: norm * r**l * np.exp(-exponent * r * r)


@pytest.mark.parametrize(
    ("element", "l", "shells"), [(6, 1, [(2, 1.8, 4)]), (26, 2, [(3, 1.911049, 3)]), (79, 0, [(6, 2.183171, 6)])]
)
def test_overlaps_are_integrals(element, l, shells):
    """Shells of GFN2-xTB as published; the integral over r of Gaussian times orbital."""
    first, ratio, many = GAUSSIANS["aux28"][l]
    start = sum(g[2] for g in GAUSSIANS["aux28"][:l])
    found = overlaps("gfn2-xtb", "aux28", [element])[0, start : start + many]
    for k in (0, many // 2, many - 1):
        wanted = 0.0
        for n, zeta, count in shells:
            exponents, coefficients = orbital(l, n, zeta, count)
            parts = [radial(l, a) for a in exponents]
            auxiliary = radial(l, first / ratio**k)
            whole = lambda r: sum(c * p(r) for c, p in zip(coefficients, parts, strict=True))  # noqa: B023, E731
            assert abs(quad(lambda r: r * r * whole(r) ** 2, 0, 40)[0] - 1) < 1e-6  # noqa: B023
            wanted += quad(lambda r: r * r * whole(r) * auxiliary(r), 0, 40, limit=200)[0]  # noqa: B023
        assert abs(found[k] - wanted) < 1e-6


def test_orbitals_are_like_slater_functions():
    """2p of carbon, zeta 1.8: overlap of the Gaussians with the Slater function itself."""
    exponents, coefficients = orbital(1, 2, 1.8, 4)
    parts = [radial(1, a) for a in exponents]
    slater = lambda r: (2 * 1.8) ** 2.5 / np.sqrt(24) * r * np.exp(-1.8 * r)  # noqa: E731
    both = lambda r: r * r * slater(r) * sum(c * p(r) for c, p in zip(coefficients, parts, strict=True))  # noqa: E731
    assert quad(both, 0, 30)[0] > 0.999


def test_tables_cover_86_elements_and_refuse_others():
    for method in ("gfn1-xtb", "gfn2-xtb"):
        for auxiliary, width in (("aux28", 28), ("aux56", 56)):
            table = overlaps(method, auxiliary, range(1, 87))
            assert table.shape == (86, width)
            assert len(np.unique(table.round(6), axis=0)) == 86
    with pytest.raises(ModelError, match="no orbitals of U"):
        overlaps("gfn2-xtb", "aux56", [92])
    small, large = (overlaps("gfn2-xtb", name, [8, 26]) for name in ("aux28", "aux56"))
    assert np.allclose(small[:, :16], large[:, :32:2])  # every second one


def test_harmonics_are_those_of_e3nn():
    directions = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    unit = directions / directions.norm(dim=1, keepdim=True)
    found = SphericalHarmonics(4).double()(unit)[0]
    wanted = o3.spherical_harmonics(range(5), unit, normalize=True, normalization="component")
    assert float((found - wanted).abs().max()) < 1e-12


@pytest.mark.parametrize(("kind", "orders"), [("cosine", 2), ("polynomial", 3), ("exponential", 4)])
def test_cutoffs_end_smoothly(kind, orders):
    """The value and the derivatives before `orders` vanish at the cutoff, all beyond it."""
    r = torch.tensor([[4.0 - 1e-7], [4.0], [4.5]], dtype=torch.float64, requires_grad=True)
    value = cutoff_function(kind, r, 4.0)
    for _ in range(orders):
        assert float(value.detach().abs().max()) < 1e-5
        (value,) = torch.autograd.grad(value.sum(), r, create_graph=True)
    assert abs(float(cutoff_function(kind, torch.tensor([[1e-6]], dtype=torch.float64), 4.0)) - 1) < 1e-6
    if kind == "cosine":
        assert float(value[0].detach()) > 0.1  # the jump that is told of


def small(**settings):
    shape = {"node_dim": 8, "node_irreps": "6x0e + 5x1o + 3x2e", "num_basis": 6, "cutoff": 3.5}
    return build_potential(
        "xpainn",
        XpainnSettings.model_validate(shape | settings),
        elements=[6],
        reference_energies={"default": {6: 0.0}},
        avg_num_neighbors=5.0,
        dtype=torch.float64,
        seed=4,
    )


def test_softness_keeps_forces_from_jumping_where_vectors_vanish_by_symmetry():
    """An atom in the middle of two others, pushed a little to one side: twice as far, twice the force."""
    ratios = []
    for softness in (0.1, 1e-6):
        potential = small(softness=softness)
        line = [Structure(np.full(3, 6), np.array([[-1.5, 0, 0], [x, 0, 0], [1.5, 0, 0]])) for x in (1e-3, 2e-3)]
        with torch.no_grad():
            forces = potential(build_graph(line, potential.needs, dtype=torch.float64)).forces
        ratios.append(float(forces[4, 0] / forces[1, 0]))
    assert abs(ratios[0] - 2) < 0.05
    assert ratios[1] < 1.3  # as published: as good as the same on both sides of a jump
