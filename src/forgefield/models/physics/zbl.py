"""Ziegler-Biersack-Littmark repulsion of bare nuclei, switched off at the bond length or between two distances."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from forgefield.core.catalog import Entry
from forgefield.core.elements import covalent_radii
from forgefield.core.settings import Settings
from forgefield.models.architecture import Geometry, PhysicsContext, PhysicsTerm, Share
from forgefield.models.blocks.pairwise import along, halves, head_of_atoms
from forgefield.models.blocks.radial import polynomial_cutoff


class Screening(NamedTuple):
    """Constants of the universal screened Coulomb potential, in one of the roundings in use."""

    coulomb: float  # e^2 / (4 pi eps0), eV Å
    terms: tuple[tuple[float, float], ...]  # weight, rate of each exponential
    length: float  # Å
    exponent: float  # of the nuclear charges in the screening length


MACE = Screening(14.3996, ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016)), 0.4543 * 0.529, 0.300)
LAMMPS = Screening(
    14.399645, ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162)), 0.46850, 0.23
)


class ZblSettings(Settings):
    """Settings of the ZBL term."""

    form: Literal["bond", "lammps"] = Field(
        "bond",
        description="bond: MACE's, ends at the sum of covalent radii. lammps: pair_style zbl with `inner` and `outer`.",
    )
    envelope: int = Field(
        5, ge=2, le=20, description="bond: order of the polynomial switch at the sum of covalent radii."
    )
    inner: float | None = Field(None, gt=0, description="lammps: the switching polynomial begins here, Å.")
    outer: float | None = Field(
        None, gt=0, description="lammps: the repulsion ends here, Å; within the architecture's cutoff."
    )

    @model_validator(mode="after")
    def _belongs(self) -> ZblSettings:
        """Distances belong to the form `lammps`, the envelope to `bond`."""
        if self.form == "bond":
            given = [name for name in ("inner", "outer") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"{' and '.join(given)} belong to `form: lammps`; add it or leave them out")
            return self
        if self.envelope != type(self).model_fields["envelope"].default:
            raise ValueError("envelope belongs to `form: bond`; `form: lammps` switches between inner and outer")
        if self.inner is None or self.outer is None or self.inner >= self.outer:
            raise ValueError("`form: lammps` needs inner < outer, in Å, for example inner: 0.7, outer: 1.5")
        return self


class Zbl(PhysicsTerm):
    """Screened nuclear repulsion at short distance.

    Args:
        settings: form and switch.
        context: heads and their factors, 1 for a physical repulsion.

    Source:
        Ziegler, Biersack, Littmark (1985); constants and switch as MACE's `pair_repulsion` or LAMMPS's
        `pair_style zbl`.
    """

    def __init__(self, settings: ZblSettings, context: PhysicsContext) -> None:
        super().__init__()
        self.settings = settings
        self.near_cutoff = settings.outer or 0.0
        self.register_buffer("radii", torch.as_tensor(covalent_radii), persistent=False)
        self.register_buffer("scale", torch.tensor(context.scale, dtype=torch.float64), persistent=False)

    def forward(self, geometry: Geometry, charges: Tensor | None = None) -> Share:
        """Half of each pair's energy at either atom; gradients by the near pair vectors (P, 3), Å."""
        graph, vectors = geometry.graph, geometry.vectors
        r = torch.linalg.vector_norm(vectors, dim=1)
        z1, z2 = graph.numbers[graph.pair_first], graph.numbers[graph.pair_second]
        energy, slope = self._lammps(r, z1, z2) if self.settings.form == "lammps" else self._bond(r, z1, z2)
        scale = self.scale.index_select(0, head_of_atoms(graph).index_select(0, graph.pair_first))
        atoms = halves(energy * scale, graph.pair_first, graph.pair_second, graph.n_atoms)
        return Share(atoms, vectors=along(slope * scale, r, vectors))

    def _bond(self, r: Tensor, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and derivative by the distance, twice (P,), times a switch that is 0 at the bond length."""
        bare, slope, _ = bare_repulsion(r, z1, z2, MACE)
        bond = self.radii[z1] + self.radii[z2]
        switch, d_switch = polynomial_cutoff(r / bond, self.settings.envelope)
        return bare * switch, slope * switch + bare * d_switch / bond

    def _lammps(self, r: Tensor, z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
        """Energy and derivative, twice (P,), plus a polynomial that makes value, slope and curvature 0 at `outer`."""
        inner, outer = float(self.settings.inner or 0.0), float(self.settings.outer or 0.0)
        width = outer - inner
        bare, slope, _ = bare_repulsion(r, z1, z2, LAMMPS)
        e, d1, d2 = bare_repulsion(torch.full_like(r, outer), z1, z2, LAMMPS)
        cubic = (width * d2 - 3.0 * d1) / width**2
        quartic = (2.0 * d1 - width * d2) / width**3
        constant = width * d1 / 2.0 - e - width**2 * d2 / 12.0
        t = (r - inner).clamp(min=0.0)
        inside = (r < outer).to(r.dtype)
        energy = bare + constant + t**3 * (cubic / 3.0 + quartic / 4.0 * t)
        return energy * inside, (slope + t * t * (cubic + quartic * t)) * inside


def bare_repulsion(r: Tensor, z1: Tensor, z2: Tensor, constants: Screening) -> tuple[Tensor, Tensor, Tensor]:
    """Energy, first and second derivative, each (P,), at distances r (P,), Å, of nuclei z1, z2 (P,)."""
    power = constants.exponent
    length = constants.length / (z1.to(r.dtype) ** power + z2.to(r.dtype) ** power)
    x = r / length
    screening, d1, d2 = torch.zeros_like(r), torch.zeros_like(r), torch.zeros_like(r)
    for weight, rate in constants.terms:
        part = weight * torch.exp(-rate * x)
        screening, d1, d2 = screening + part, d1 - rate * part, d2 + rate * rate * part
    coulomb = constants.coulomb * (z1 * z2).to(r.dtype) / r
    bare = coulomb * screening
    slope = coulomb * d1 / length - bare / r
    curvature = coulomb * d2 / length**2 - 2.0 * slope / r
    return bare, slope, curvature


ENTRY = Entry(settings=ZblSettings, build=Zbl, summary="nuclear repulsion at short distance")
