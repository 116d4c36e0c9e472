"""The physical quantities that can be labels or predictions: one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quantity:
    """Name, unit, owner, shape and sign of a quantity."""

    name: str
    unit: str
    per: Literal["structure", "atom"]
    shape: tuple[int, ...]
    meaning: str


QUANTITIES: dict[str, Quantity] = {
    q.name: q
    for q in (
        Quantity("energy", "eV", "structure", (), "total energy of the structure, not per atom"),
        Quantity("forces", "eV/Å", "atom", (3,), "minus the derivative of the energy by the positions"),
        Quantity("stress", "eV/Å^3", "structure", (3, 3), "dE/dstrain per volume; positive = tensile, as ASE"),
    )
}
