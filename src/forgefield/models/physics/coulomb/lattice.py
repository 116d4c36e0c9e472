"""The part of a lattice sum that does not go by pairs: reciprocal space, self energy, neutralising background."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by


class Cell(NamedTuple):
    """What follows from the lattice vectors."""

    inverse: Tensor  # (S, 3, 3), 1/Å; positions times it are fractions
    volume: Tensor  # (S,), Å^3

    @classmethod
    def of(cls, graph: Graph) -> Cell:
        """Invert the cells of a batch."""
        a, b, c = graph.cell.unbind(1)
        cross = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 2)
        volume = (a * cross[:, :, 0]).sum(1)
        return cls(cross / volume.reshape(-1, 1, 1), volume.abs())


class Lattice(NamedTuple):
    """Sums over the lattice in units of the Coulomb constant."""

    energies: Tensor  # (N,), e^2/Å
    positions: Tensor  # (N, 3), by the positions at fixed cell
    strain: Tensor  # (S, 3, 3), by a strain of positions and cell
    charges: Tensor  # (N,), by the charges

    def __add__(self, other: Lattice) -> Lattice:  # type: ignore[override]
        """Add term by term."""
        return Lattice(*(a + b for a, b in zip(self, other, strict=True)))


def gaussian_clouds(graph: Graph, charges: Tensor, cell: Cell, width: float) -> Lattice:
    """Self energy of Gaussian charges of a width (Å), taken away, and a background that makes each cell neutral.

    Without the background the energy of a charged cell would be infinite; with it, it depends on the volume.
    """
    own = -2.0 / (math.sqrt(2.0 * math.pi) * width) * charges
    total = sum_by(charges, graph.structure, graph.n_structures)
    sea = -2.0 * math.pi * width**2 * total / cell.volume
    of_atoms = sea.index_select(0, graph.structure)
    strain = torch.diag_embed((-0.5 * total * sea).unsqueeze(1).expand(-1, 3))
    slope = own + of_atoms
    return Lattice(0.5 * charges * slope, charges.new_zeros(graph.n_atoms, 3), strain, slope)
