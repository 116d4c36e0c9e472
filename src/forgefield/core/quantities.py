"""The physical quantities that can be labels or predictions: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Normalization = Literal["per_atom", "per_structure", "total", "sqrt_atoms"]
"""How losses of structures of different sizes are put together; see `train/normalization.py`."""


@dataclass(frozen=True)
class Quantity:
    """Name, unit, owner, shape and sign of a quantity, and how its loss is normalised unless told otherwise."""

    name: str
    unit: str
    per: Literal["structure", "atom"]
    shape: tuple[int, ...]
    meaning: str
    normalization: Normalization = "per_atom"
    label: str = ""  # quantity it is computed from, if it has neither labels nor predictions of its own

    @property
    def width(self) -> int:
        """Number of components."""
        return prod(self.shape)

    @property
    def is_vector(self) -> bool:
        """Whether the components have a common length: forces and dipole, for example."""
        return len(self.shape) == 1 and self.shape[0] > 1


def _table(*quantities: Quantity) -> dict[str, Quantity]:
    return {q.name: q for q in quantities}


QUANTITIES: dict[str, Quantity] = _table(
    Quantity("energy", "eV", "structure", (), "total energy of the structure, not per atom"),
    Quantity("forces", "eV/Å", "atom", (3,), "minus the derivative of the energy by the positions"),
    Quantity("stress", "eV/Å^3", "structure", (3, 3), "dE/dstrain per volume; positive = tensile, as ASE", "total"),
    Quantity("charges", "e", "atom", (), "partial charge of each atom"),
    Quantity("spin_charges", "e", "atom", (), "unpaired electrons of each atom, alpha minus beta"),
    Quantity("dipole", "e*Å", "structure", (3,), "electric dipole of the structure", "total"),
    Quantity("quadrupole", "e*Å^2", "structure", (3, 3), "electric quadrupole, second moments of the charge", "total"),
    Quantity("polarizability", "Å^3", "structure", (3, 3), "electric polarizability as a volume", "total"),
)
"""What structures can be labelled with."""

ALWAYS = ("energy", "forces", "stress")
"""What every potential predicts."""

DERIVED: dict[str, Quantity] = _table(
    Quantity("virial", "eV", "structure", (3, 3), "minus volume times stress", label="stress"),
)
"""Other forms of the same labels."""
