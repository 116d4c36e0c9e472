"""Physics terms alone: shares of a batch summed to energies, forces and stress, in the order of the structures."""

from typing import NamedTuple

import numpy as np
import torch

from forgefield.core.structure import Structure
from forgefield.graph.build import build_graph
from forgefield.graph.needs import Needs
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import Geometry, PhysicsContext
from forgefield.models.potential import PHYSICS

NEAR = 5.0
ELEMENTS = (1, 6, 8, 11, 14, 17)


class Sums(NamedTuple):
    energy: torch.Tensor  # (S,)
    forces: torch.Tensor  # (N, 3)
    stress: torch.Tensor  # (S, 3, 3), times the volume
    charges: torch.Tensor | None  # (N,)


def make(name, values, *, elements=ELEMENTS, heads=("default",), scale=None, dtype=torch.float64):
    entry = PHYSICS.entry(name)
    context = PhysicsContext(tuple(elements), tuple(heads), tuple(scale or [1.0] * len(heads)))
    return entry.build(entry.settings.model_validate(values), context).to(dtype)


def graph_of(term, structures, heads=("default",), dtype=torch.float64):
    return build_graph(structures, Needs(NEAR, far_cutoff=term.far_cutoff), heads=heads, dtype=dtype)


def total(term, graph, charges=None):
    """Run a term and put its share together as the potential does; charges in the order of the structures."""
    q = None if charges is None else torch.as_tensor(charges, dtype=graph.cell.dtype)[graph.order]
    geometry = Geometry(graph, graph.pair_vectors(), graph.far_vectors())
    share = term(geometry, q)
    n, s = graph.n_atoms, graph.n_structures
    gradient = graph.cell.new_zeros(n, 3) if share.positions is None else share.positions
    strain = torch.zeros_like(graph.cell) if share.strain is None else share.strain
    lists = [(share.vectors, geometry.vectors, graph.pair_first, graph.pair_second)]
    lists.append((share.far, geometry.far, graph.far_first, graph.far_second))
    for slopes, vectors, first, second in lists:
        if slopes is None:
            continue
        gradient = gradient + sum_by(slopes, second, n) - sum_by(slopes, first, n)
        outer = (vectors.unsqueeze(2) * slopes.unsqueeze(1)).reshape(-1, 9)
        strain = strain + sum_by(outer, graph.structure[first], s).reshape(s, 3, 3)
    strain = 0.5 * (strain + strain.transpose(1, 2))
    of_charges = None if share.charges is None else share.charges[graph.inverse]
    return Sums(sum_by(share.energies, graph.structure, s), -gradient[graph.inverse], strain, of_charges)


def evaluate(term, *structures, charges=None, heads=("default",), dtype=torch.float64):
    graph = graph_of(term, structures, heads, dtype)
    with torch.no_grad():
        return total(term, graph, charges)


def molecule(seed=0, n=7, **more):
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(3)])[:n] * 1.3
    return Structure(rng.choice([1, 6, 8], n), grid + rng.normal(0, 0.15, (n, 3)), **more)


def crystal(seed=4, **more):
    """A triclinic cell; atoms see images of themselves."""
    cell = np.array([[3.9, 0.0, 0.0], [0.7, 4.1, 0.0], [-0.4, 0.5, 4.3]])
    positions = np.array([[0.1, 0.0, 0.2], [1.9, 0.2, 2.3], [2.0, 2.4, 0.1]])
    shifted = positions + np.random.default_rng(seed).normal(0, 0.1, (3, 3))
    return Structure(np.array([11, 17, 14]), shifted, cell, np.ones(3, bool), **more)


def lone():
    return Structure(np.array([6]), np.zeros((1, 3)))
