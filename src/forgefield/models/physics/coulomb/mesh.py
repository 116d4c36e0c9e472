"""The same sum on a mesh, by torch-pme; one structure after the other, gradients by automatic differentiation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forgefield.core.errors import DataError, ModelError
from forgefield.graph.graph import Graph
from forgefield.models.physics.coulomb.lattice import Lattice

NODES = 7
"""Mesh points per axis that a charge is spread over; the most that torch-pme has."""
LARGEST = 2**24
"""Mesh points of one structure, 256 in each direction; four such meshes of numbers are held."""


class Mesh(nn.Module):
    """Energy of Gaussian charges in all cells, self energy and background included, by PME.

    Args:
        width: of the Gaussians, Å.
        spacing: of the mesh, Å; torch-pme rounds the number of points up to a power of two.
    """

    def __init__(self, width: float, spacing: float) -> None:
        super().__init__()
        self.spacing = spacing
        try:
            from torchpme import CoulombPotential, PMECalculator
        except ImportError as error:
            raise ModelError(
                f"`method: pme` needs a package: {error}",
                "physics.coulomb",
                "pip install torch-pme, or `method: ewald`",
            ) from error
        make = lambda dtype: PMECalculator(  # noqa: E731
            CoulombPotential(smearing=width).to(dtype),
            mesh_spacing=spacing,
            interpolation_nodes=NODES,
        ).to(dtype)
        self.calculators = {torch.float64: make(torch.float64), torch.float32: make(torch.float32)}

    def forward(self, graph: Graph, charges: Tensor) -> Lattice:
        """Sum over the structures of a batch; gradients can be differentiated by the charges once more."""
        learn = torch.is_grad_enabled() and charges.requires_grad
        with torch.enable_grad():
            positions = graph.positions.detach().to(graph.cell.dtype).requires_grad_()
            cell = graph.cell.detach().requires_grad_()
            q = charges if learn else charges.detach().requires_grad_()
            energies = self._energies(graph, positions, cell, q)
            by_x, by_cell, by_q = torch.autograd.grad(energies.sum(), (positions, cell, q), create_graph=learn)
        strain = torch.bmm(graph.cell.transpose(1, 2), by_cell)
        outer = (positions.detach().unsqueeze(2) * by_x.unsqueeze(1)).reshape(-1, 9)
        strain = strain + strain.new_zeros(len(cell), 9).index_add(0, graph.structure, outer).reshape(-1, 3, 3)
        strain = 0.5 * (strain + strain.transpose(1, 2))
        return Lattice(energies if learn else energies.detach(), by_x, strain, by_q)

    def _energies(self, graph: Graph, positions: Tensor, cell: Tensor, charges: Tensor) -> Tensor:
        """Energy of each atom, (N,), over the Coulomb constant."""
        sides = torch.linalg.vector_norm(cell.detach(), dim=2) / self.spacing
        points = 2.0 ** torch.ceil(torch.log2(2.0 * sides + 1.0)).sum(1)
        if bool((points > LARGEST).any()):
            raise DataError(
                f"the mesh of a structure would have {float(points.max()):.1e} points, more than {LARGEST:.1e}",
                "physics.coulomb.accuracy",
                "ask for less accuracy, or use `method: ewald`",
            )
        nobody = torch.zeros((0, 2), dtype=torch.long, device=positions.device)
        energies = torch.zeros_like(charges)
        calculator = self.calculators[positions.dtype].to(positions.device)
        for k in range(graph.n_structures):
            rows = torch.nonzero(graph.structure == k).squeeze(1)
            q = charges.index_select(0, rows)
            x = positions.index_select(0, rows)
            felt = calculator(q.unsqueeze(1), cell[k], x, nobody, positions.new_zeros(0)).squeeze(1)
            energies = energies.index_add(0, rows, q * felt)
        return energies


def mesh_spacing(width: float, accuracy: float) -> float:
    """Spacing with about the wanted accuracy, Å: errors go with its sixth power (measured, docs/physics.md)."""
    return width * min(1.0, 0.5 * (1e6 * accuracy) ** (1.0 / 6.0))
