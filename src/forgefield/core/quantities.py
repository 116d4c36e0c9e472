"""The physical quantities that can be labels or predictions: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

Normalization = Literal["per_atom", "per_structure", "total", "sqrt_atoms"]
"""How losses of structures of different sizes are put together; see `train/normalization.py`."""
Rotates = Literal["not", "vector", "tensor"]
"""What the components do when the structure is turned: nothing, as a vector (3,), as a tensor (3, 3)."""


@dataclass(frozen=True)
class Quantity:
    """Name, unit, owner, shape and sign of a quantity, and how its loss is normalised unless told otherwise.

    A `class` is a yes or no: its label is 1 or 0, its prediction the probability of 1. A tensor is `symmetric` if its
    indices may be exchanged, as those of all known physics here may.
    """

    name: str
    unit: str
    per: Literal["structure", "atom"]
    shape: tuple[int, ...]
    meaning: str
    normalization: Normalization = "per_atom"
    label: str = ""  # quantity it is computed from, if it has neither labels nor predictions of its own
    kind: Literal["number", "class"] = "number"
    rotates: Rotates = "not"
    symmetric: bool = True

    @property
    def width(self) -> int:
        """Number of components."""
        return prod(self.shape)

    @property
    def is_vector(self) -> bool:
        """Whether the components have a common length: forces and dipole, for example."""
        return len(self.shape) == 1 and self.shape[0] > 1


def _vector(
    name: str, unit: str, per: Literal["structure", "atom"], meaning: str, normalization: Normalization = "total"
) -> Quantity:
    return Quantity(name, unit, per, (3,), meaning, normalization, rotates="vector")


def _tensor(name: str, unit: str, meaning: str, normalization: Normalization = "total", label: str = "") -> Quantity:
    return Quantity(name, unit, "structure", (3, 3), meaning, normalization, label, rotates="tensor")


def _table(*quantities: Quantity) -> dict[str, Quantity]:
    return {q.name: q for q in quantities}


QUANTITIES: dict[str, Quantity] = _table(
    Quantity("energy", "eV", "structure", (), "total energy of the structure, not per atom"),
    _vector("forces", "eV/Å", "atom", "minus the derivative of the energy by the positions", "per_atom"),
    _tensor("stress", "eV/Å^3", "dE/dstrain per volume; positive = tensile, as ASE"),
    Quantity("charges", "e", "atom", (), "partial charge of each atom"),
    Quantity("spin_charges", "e", "atom", (), "unpaired electrons of each atom, alpha minus beta"),
    _vector("dipole", "e*Å", "structure", "electric dipole of the structure"),
    _tensor("quadrupole", "e*Å^2", "electric quadrupole, second moments of the charge"),
    _tensor("polarizability", "Å^3", "electric polarizability as a volume"),
)
"""What structures can be labelled with."""

ALWAYS = ("energy", "forces", "stress")
"""What every potential predicts."""

DERIVED: dict[str, Quantity] = _table(
    _tensor("virial", "eV", "minus volume times stress", "per_atom", label="stress"),
)
"""Other forms of the same labels."""
