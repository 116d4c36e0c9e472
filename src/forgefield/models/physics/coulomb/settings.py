"""Settings of the Coulomb term."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from forgefield.core.elements import number
from forgefield.core.errors import ForgeError
from forgefield.core.settings import Settings

CUTOFFS = {"simple": math.inf, "dsf": 15.0, "ewald": 10.0, "pme": 10.0}
"""Default `cutoff` of each method, Å."""
OWNERS = {
    "cutoff": ("dsf", "ewald", "pme"),
    "dsf_alpha": ("dsf",),
    "dsf_self_energy": ("dsf",),
    "accuracy": ("ewald", "pme"),
}
"""Methods that a key belongs to."""


class CoulombSettings(Settings):
    """Settings of the Coulomb term."""

    method: Literal["simple", "dsf", "ewald", "pme"] = Field(
        "simple",
        description="simple: all pairs of a molecule. dsf: damped and shifted force. ewald, pme: periodic crystals.",
    )
    charges: Literal["predicted", "given"] | dict[str, float] = Field(
        "predicted",
        description="predicted: by the architecture. given: each structure states those of its atoms, which are read "
        "as data.charges_key says, in ASE as initial charges. Or a map from every element to its charge, e.",
    )
    cutoff: float | None = Field(
        None,
        gt=0,
        le=200,
        description="dsf, ewald, pme: pairs up to this distance, Å; default dsf 15, ewald and pme 10.",
    )
    short_range: Literal["removed", "kept"] = Field(
        "removed", description="removed: the network describes what is near, as in AIMNet2. kept: plain Coulomb."
    )
    short_range_cutoff: float = Field(4.6, gt=0, description="Distance where the removed part ends, Å.")
    dsf_alpha: float = Field(0.2, gt=0, description="dsf: damping, 1/Å.")
    dsf_self_energy: Literal["none", "aimnet", "lammps"] = Field(
        "none",
        description="dsf: energy of each charge and its own damped image. none; aimnet: as the aimnet package adds it; "
        "lammps: as pair_style coul/dsf, its force shifted too.",
    )
    accuracy: float = Field(1e-6, gt=0, lt=0.1, description="ewald, pme: size of what is neglected, relative.")

    @field_validator("charges")
    @classmethod
    def _known(cls, charges: str | dict[str, float]) -> str | dict[str, float]:
        """Keys are elements."""
        for name in () if isinstance(charges, str) else charges:
            try:
                number(name)
            except ForgeError as error:
                raise ValueError(str(error)) from error
        return charges

    @model_validator(mode="after")
    def _belongs(self) -> CoulombSettings:
        """Keys of another method keep their defaults."""
        changed = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        for name, methods in OWNERS.items():
            if name in changed and self.method not in methods:
                raise ValueError(f"{name} belongs to `method: {' or '.join(methods)}`, not {self.method}; leave it out")
        if self.short_range == "kept" and "short_range_cutoff" in changed:
            raise ValueError("short_range_cutoff has no effect with `short_range: kept`; leave it out")
        if self.short_range == "removed" and self.short_range_cutoff > self.reach:
            raise ValueError(f"short_range_cutoff is larger than cutoff ({self.reach:g} Å)")
        return self

    @property
    def reach(self) -> float:
        """Cutoff of the pairs, Å."""
        return CUTOFFS[self.method] if self.cutoff is None else self.cutoff
