"""Energy of atomic charges: predicted, given with the structures, or given by element."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from forgefield.core.elements import number, symbol
from forgefield.core.errors import ConfigError, DataError, ModelError
from forgefield.core.units import BOHR, HARTREE
from forgefield.graph.graph import Graph
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import Geometry, PhysicsContext, PhysicsTerm, Share
from forgefield.models.blocks.pairwise import along, halves
from forgefield.models.physics.coulomb.ewald import reciprocal_sum
from forgefield.models.physics.coulomb.lattice import Cell, Lattice, gaussian_clouds
from forgefield.models.physics.coulomb.mesh import Mesh, mesh_spacing
from forgefield.models.physics.coulomb.pairs import Function, bare, damped_shifted, near_part, screened, self_energy
from forgefield.models.physics.coulomb.settings import CoulombSettings

COULOMB = HARTREE * BOHR
"""e^2 / (4 pi eps0), eV Å."""


class Coulomb(PhysicsTerm):
    """Coulomb energy of point charges, without the part at short distance that a network describes.

    Args:
        settings: method, charges, cutoffs.
        context: elements, heads and their factors.

    Raises:
        ConfigError: an element of the model has no charge.
        ModelError: the package of a method is missing.
    """

    def __init__(self, settings: CoulombSettings, context: PhysicsContext) -> None:
        super().__init__()
        self.settings = settings
        self.far_cutoff = settings.reach
        self.uses_charges = settings.charges == "predicted"
        self.given_charges = settings.charges == "given"
        self.exportable = settings.method != "pme"
        self.periodic = {"simple": False, "dsf": None}.get(settings.method, True)
        bound = math.sqrt(-2.0 * math.log(settings.accuracy))  # both sums end where a Gaussian falls to the accuracy
        self.width = self.far_cutoff / bound
        self.longest = bound / self.width
        self.mesh = Mesh(self.width, mesh_spacing(self.width, settings.accuracy)) if settings.method == "pme" else None
        self.register_buffer("elements", torch.tensor(context.elements), persistent=False)
        given = torch.tensor(_charges_by_element(settings, context.elements), dtype=torch.float64)
        self.register_buffer("given", given, persistent=False)
        self.register_buffer("scale", torch.tensor(context.scale, dtype=torch.float64), persistent=False)

    def forward(self, geometry: Geometry, charges: Tensor | None = None) -> Share:
        """Half of each pair's energy at either atom, eV; gradients by far pairs, positions, strain and charges.

        Args:
            geometry: graph and pair vectors.
            charges: of the atoms (N,), e, if they are predicted.

        Raises:
            ModelError: charges are to be predicted and the architecture predicts none.
            DataError: the method is not meant for one of the structures.
        """
        graph, q = geometry.graph, self._charges(geometry.graph, charges)
        r = torch.linalg.vector_norm(geometry.far, dim=1)
        if self.settings.method in ("ewald", "pme"):
            self._check(graph)
        scale = COULOMB * self.scale.index_select(0, graph.head)
        of_atoms = scale.index_select(0, graph.structure)
        factor = of_atoms.index_select(0, graph.far_first)
        q1, q2 = q.index_select(0, graph.far_first), q.index_select(0, graph.far_second)
        value, slope = self._of_distance(r)
        value, n = factor * value, graph.n_atoms
        energies = halves(q1 * q2 * value, graph.far_first, graph.far_second, n)
        by_charge = sum_by(q2 * value, graph.far_first, n) + sum_by(q1 * value, graph.far_second, n)
        far = along(q1 * q2 * factor * slope, r, geometry.far)
        if (kind := self.settings.dsf_self_energy) != "none":
            own = self_energy(self.settings.dsf_alpha, self.far_cutoff, shifted=kind == "lammps") * of_atoms * q
            energies, by_charge = energies + own * q, by_charge + 2.0 * own
        seen = by_charge if self.uses_charges else None
        if self.settings.method not in ("ewald", "pme"):
            return Share(energies, far=far, charges=seen)
        sums = self._lattice(graph, q)
        return Share(
            energies + of_atoms * sums.energies,
            far=far,
            positions=of_atoms.unsqueeze(1) * sums.positions,
            strain=scale.reshape(-1, 1, 1) * sums.strain,
            charges=by_charge + of_atoms * sums.charges if self.uses_charges else None,
        )

    def _charges(self, graph: Graph, charges: Tensor | None) -> Tensor:
        if self.given_charges:
            return graph.atom_charges
        if not self.uses_charges:
            return self.given.index_select(0, torch.searchsorted(self.elements, graph.numbers))
        if charges is None:
            raise ModelError(
                "the architecture predicts no charges",
                "physics.coulomb.charges",
                "give charges by element, for example {Na: 1, Cl: -1}, or take an architecture that predicts them",
            )
        return charges

    def _of_distance(self, r: Tensor) -> Function:
        """Energy of two unit charges over the Coulomb constant and its derivative, twice (F,)."""
        method, cutoff = self.settings.method, self.far_cutoff
        if method == "simple":
            value, slope = bare(r)
        elif method == "dsf":
            value, slope = damped_shifted(r, self.settings.dsf_alpha, cutoff)
        else:
            inside = (r < cutoff).to(r.dtype)
            value, slope = (part * inside for part in screened(r, self.width))
        if self.settings.short_range == "removed":
            near, d_near = near_part(r, self.settings.short_range_cutoff)
            value, slope = value - near, slope - d_near
        return value, slope

    def _lattice(self, graph: Graph, q: Tensor) -> Lattice:
        if self.mesh is not None:
            return self.mesh(graph, q)
        cell = Cell.of(graph)
        clouds = gaussian_clouds(graph, q, cell, self.width)
        return clouds + reciprocal_sum(graph, q, cell, self.width, self.longest)

    def _check(self, graph: Graph) -> None:
        """Refuse structures without a lattice, and recordings of a mesh, whose size would be fixed."""
        method, recorded = self.settings.method, torch.jit.is_tracing() or torch.compiler.is_exporting()
        if recorded and self.mesh is not None:
            raise ModelError(
                f"`method: {method}` cannot be exported: the size of the mesh follows from the cell",
                "physics.coulomb",
                "use the bundle itself (Python, ASE), or train with `method: ewald`",
            )
        if recorded or torch.compiler.is_compiling() or bool(graph.pbc.all()):
            return
        raise DataError(
            f"`method: {method}` needs structures that are periodic in three directions, and one is not",
            "physics.coulomb",
            "use `method: dsf`, or `method: simple` for molecules",
        )


def _charges_by_element(settings: CoulombSettings, elements: tuple[int, ...]) -> list[float]:
    if isinstance(settings.charges, str):
        return [0.0] * len(elements)
    given = {number(name): value for name, value in settings.charges.items()}
    missing = [symbol(z) for z in elements if z not in given]
    if missing:
        raise ConfigError(
            f"no charge for {', '.join(missing)}", "physics.coulomb.charges", f"add for example {missing[0]}: 0"
        )
    return [given[z] for z in elements]
