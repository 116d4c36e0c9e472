"""Inference in pieces, and with held weights, equals inference as a whole."""

import numpy as np
import pytest
import torch

from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.kernels.choice import compiled
from forgefield.kernels.library import load
from forgefield.models.architectures.mace import model as mace
from forgefield.models.potential import ARCHITECTURES, build_potential

pytestmark = pytest.mark.skipif(load().path is None, reason=f"no compiled operators: {load().words}")


def two_structures():
    """A molecule and a small periodic cell that sees its own images."""
    generator = np.random.default_rng(3)
    molecule = Structure(numbers=generator.choice([1, 6, 8], 9), positions=generator.uniform(0, 5, (9, 3)))
    cell = Structure(
        numbers=np.array([6, 1]), positions=generator.uniform(0, 2, (2, 3)), cell=np.eye(3) * 3.1, pbc=np.ones(3, bool)
    )
    return build_graph([molecule, cell], Needs(3.5), dtype=torch.float64)


def potential(**shape):
    settings = ARCHITECTURES.entry("mace").settings.model_validate(
        {"r_max": 3.5, "hidden_irreps": "8x0e+8x1o", **shape}
    )
    energies = {"default": {1: -1.0, 6: -2.0, 8: -3.0}}
    return build_potential(
        "mace", settings, elements=[1, 6, 8], reference_energies=energies, avg_num_neighbors=4.0, dtype=torch.float64
    )


@pytest.mark.parametrize("shape", [{}, {"interaction": "density_residual", "num_interactions": 3}])
@pytest.mark.parametrize(("pairs", "kept"), [(1, 0), (7, 0), (20, 0), (7, 2**30)])
def test_pieces_equal_the_whole(shape, pairs, kept, monkeypatch):
    model, graph = potential(**shape), two_structures()
    n_paths = max(len(layer.edge.paths) for layer in model.architecture.layers)
    with torch.no_grad():
        whole = model(graph)
        monkeypatch.setattr(mace, "WHOLE_BYTES", 0)
        monkeypatch.setattr(mace, "KEPT_BYTES", kept)
        monkeypatch.setattr(mace, "PIECE_PAIRS", pairs)
        monkeypatch.setattr(mace, "PIECE_BYTES", pairs * n_paths * 8 * 8)
        assert compiled(graph.positions)
        basis, harmonics = (torch.zeros(graph.pair_first.shape[0], n).double() for n in (8, 16))
        cut = model.architecture._pieces(graph, basis, harmonics)
        assert len(cut) > 1
        pieces = model(graph)
    for a, b in zip(whole, pieces, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


def test_held_weights_change_nothing_but_are_final():
    model, graph = potential(), two_structures()
    with torch.no_grad():
        before = model(graph)
        held = model.hold_weights()(graph)
    for a, b in zip(before, held, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=0)
    assert not any(p.requires_grad for p in model.parameters())
