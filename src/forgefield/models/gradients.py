"""Gradients of the terms of a potential, added up and turned into forces and stress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import Geometry, PhysicsTerm, Share


class Gradients(NamedTuple):
    """Derivatives of the energy; None is zero. See `Share`."""

    vectors: Tensor  # (P, 3), eV/Å, by the pairs' vectors
    far: Tensor | None = None  # (F, 3), eV/Å, by the far pairs' vectors
    positions: Tensor | None = None  # (N, 3), eV/Å
    strain: Tensor | None = None  # (S, 3, 3), eV

    def plus(self, vectors: Tensor | None) -> Gradients:
        """Return them with more gradients by the pairs' vectors."""
        return self if vectors is None else Gradients(self.vectors + vectors, *self[1:])

    def add(self, share: Share) -> Gradients:
        """Return them with those of a physics term."""
        far, positions = _sum(self.far, share.far), _sum(self.positions, share.positions)
        return Gradients(self.vectors, far, positions, _sum(self.strain, share.strain)).plus(share.vectors)

    def forces(self, graph: Graph) -> Tensor:
        """Forces in the order of the graph, (N, 3), eV/Å."""
        n = graph.n_atoms
        forces = sum_by(self.vectors, graph.pair_first, n) - sum_by(self.vectors, graph.pair_second, n)
        if self.far is not None:
            forces = forces + sum_by(self.far, graph.far_first, n) - sum_by(self.far, graph.far_second, n)
        return forces if self.positions is None else forces - self.positions.to(forces.dtype)

    def stress(self, geometry: Geometry) -> Tensor:
        """Strain derivative by volume, symmetrised, (S, 3, 3), eV/Å^3; zero where the cell has no volume."""
        graph, vectors, far_vectors = geometry
        s = graph.n_structures
        virial = _virial(vectors, self.vectors, graph.pair_first, graph)
        if self.far is not None:
            virial = virial + _virial(far_vectors, self.far, graph.far_first, graph)
        if self.strain is not None:
            virial = virial + self.strain.double()
        a, b, c = graph.cell.double().unbind(1)
        volume = (a * torch.linalg.cross(b, c)).sum(1).abs().reshape(s, 1, 1)
        safe = torch.where(volume > 0, volume, torch.ones_like(volume))
        stress = (0.5 * (virial + virial.transpose(1, 2)) / safe).to(vectors.dtype)
        return torch.where(volume > 0, stress, torch.zeros_like(stress))


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _virial(vectors: Tensor, gradients: Tensor, first: Tensor, graph: Graph) -> Tensor:
    """Sum of vector x gradient, (S, 3, 3); pairs are summed at their first atom, atoms in float64."""
    outer = (vectors.unsqueeze(2) * gradients.unsqueeze(1)).reshape(-1, 9)
    of_atoms = sum_by(outer, first, graph.n_atoms).double()
    return sum_by(of_atoms, graph.structure, graph.n_structures).reshape(-1, 3, 3)


class Electrostatics:
    """The physics terms that use the architecture's charges, on one batch.

    Args:
        geometry: the batch.
        terms: the terms.
    """

    def __init__(self, geometry: Geometry, terms: Sequence[PhysicsTerm]) -> None:
        self.geometry, self.terms = geometry, list(terms)
        self._last: tuple[Tensor, list[Share]] | None = None

    def respond(self, charges: Tensor) -> Tensor:
        """Return the derivative of all terms' energy by each charge, (N,), eV/e."""
        shares = [term(self.geometry, charges) for term in self.terms]
        self._last = charges, shares
        slopes = [share.charges for share in shares if share.charges is not None]
        return torch.stack(slopes).sum(0)

    def shares(self, predicted: Mapping[str, Tensor]) -> list[Share]:
        """Return what the terms add, at the charges that the architecture ended with."""
        if not self.terms:
            return []
        charges, last, self._last = predicted["charges"], self._last, None
        if last is not None and last[0] is charges:
            return last[1]
        return [term(self.geometry, charges) for term in self.terms]
