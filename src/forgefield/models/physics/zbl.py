"""Ziegler-Biersack-Littmark repulsion of bare nuclei, switched off at the bond length."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.elements import covalent_radii
from forgefield.core.settings import Settings
from forgefield.graph.segment import sum_by
from forgefield.models.architecture import Geometry, PhysicsContext, PhysicsTerm, Share
from forgefield.models.blocks.radial import polynomial_cutoff

COULOMB = 14.3996  # e^2 / (4 pi eps0), eV Å
TERMS = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))
PREFACTOR, EXPONENT, BOHR = 0.4543, 0.300, 0.529


class ZblSettings(Settings):
    """Settings of the ZBL term."""

    envelope: int = Field(5, ge=2, le=20, description="Order of the polynomial switch at the sum of covalent radii.")


class Zbl(PhysicsTerm):
    """Screened nuclear repulsion within the sum of covalent radii.

    Args:
        settings: order of the switch.
        context: factor per head; 1 for a physical repulsion.

    Source:
        Ziegler, Biersack, Littmark (1985); constants and switch as MACE's `pair_repulsion`.
    """

    def __init__(self, settings: ZblSettings, context: PhysicsContext) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("radii", torch.as_tensor(covalent_radii), persistent=False)
        self.register_buffer("scale", torch.tensor(context.scale, dtype=torch.float64), persistent=False)

    def forward(self, geometry: Geometry, charges: Tensor | None = None) -> Share:
        """Half of each pair's energy at either atom; gradients by the pair vectors (P, 3), Å."""
        graph, vectors, _ = geometry
        r = torch.linalg.vector_norm(vectors, dim=1)
        z1, z2 = graph.numbers[graph.pair_first], graph.numbers[graph.pair_second]
        length = PREFACTOR * BOHR / (z1.to(r.dtype) ** EXPONENT + z2.to(r.dtype) ** EXPONENT)
        x = r / length
        screening, slope = torch.zeros_like(r), torch.zeros_like(r)
        for weight, rate in TERMS:
            part = weight * torch.exp(-rate * x)
            screening = screening + part
            slope = slope - rate * part
        bond = self.radii[z1] + self.radii[z2]
        switch, d_switch = polynomial_cutoff(r / bond, self.settings.envelope)
        coulomb = COULOMB * (z1 * z2).to(r.dtype) / r
        bare = coulomb * screening
        d_bare = coulomb * slope / length - bare / r
        scale = self.scale.index_select(0, graph.head[graph.structure[graph.pair_first]])
        energy = 0.5 * bare * switch * scale
        gradient = (d_bare * switch + bare * d_switch / bond) * scale
        n = graph.n_atoms
        atoms = sum_by(energy, graph.pair_first, n) + sum_by(energy, graph.pair_second, n)
        return Share(atoms, (gradient / r).unsqueeze(1) * vectors)


ENTRY = Entry(settings=ZblSettings, build=Zbl, summary="nuclear repulsion at short distance")
