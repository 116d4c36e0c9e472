"""In which units, and with which signs, a file holds its numbers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from forgefield.core.errors import ForgeError
from forgefield.core.settings import Settings
from forgefield.core.units import factor
from forgefield.data.label_names import AUTO

INTERNAL = {
    "energy": "eV", "length": "Ang", "stress": "eV/Ang^3", "dipole": "e*Ang", "quadrupole": "e*Ang^2",
    "polarizability": "Ang^3", "stress_sign": "ase", "energy_per": "structure", "spin": "multiplicity",
}  # fmt: skip
"""What `auto` means where the file says nothing."""
_DECLARED = "auto: what the file or its format declares, else {}."


def check_unit(quantity: str, unit: str | None) -> str | None:
    """Return the unit if it is known, in the way pydantic validators need it.

    Raises:
        ValueError: it is not known.
    """
    if unit is not None and unit != AUTO:
        try:
            factor(quantity, unit)
        except ForgeError as error:
            raise ValueError(str(error)) from None
    return unit


class LabelUnits(Settings):
    """Units and signs of a file; all is turned into eV, Å, eV/Å and eV/Å^3 when it is read."""

    energy: str = Field(
        default=AUTO,
        description=f"Unit of energies, and of virials: eV, meV, Ha, kcal/mol, kJ/mol. {_DECLARED.format('eV')}",
    )
    length: str = Field(
        default=AUTO, description=f"Unit of positions and cell: Ang, bohr, nm. {_DECLARED.format('Ang')}"
    )
    forces: str | None = Field(
        default=None,
        description="Unit of forces, for example 'eV/Ang'; null: what the file declares, else energy unit per length "
        "unit.",
    )
    stress: str = Field(
        default=AUTO, description=f"Unit of stresses: eV/Ang^3, GPa, kbar. {_DECLARED.format('eV/Ang^3')}"
    )
    dipole: str = Field(default=AUTO, description=f"Unit of dipoles: e*Ang, e*bohr, Debye. {_DECLARED.format('e*Ang')}")
    quadrupole: str = Field(
        default=AUTO,
        description=f"Unit of quadrupoles: e*Ang^2, e*bohr^2, Debye*Ang. {_DECLARED.format('e*Ang^2')}",
    )
    polarizability: str = Field(
        default=AUTO, description=f"Unit of polarizabilities: Ang^3, bohr^3. {_DECLARED.format('Ang^3')}"
    )
    stress_sign: Literal["auto", "ase", "vasp"] = Field(
        default=AUTO,
        description="'ase': a positive stress is tensile, +dE/dstrain/V, and virial = -stress*V. "
        f"'vasp': both signs are opposite. {_DECLARED.format('ase')}",
    )
    stress_quantity: Literal["auto", "stress", "virial"] = Field(
        default=AUTO,
        description="What the stress key holds. A virial is an energy: stress = -virial/V. "
        "'auto' goes by the format, or by the name of the key.",
    )
    energy_per: Literal["auto", "structure", "atom"] = Field(
        default=AUTO,
        description="Whether the energy is that of the whole structure or an average over its atoms. "
        f"{_DECLARED.format('structure')}",
    )
    spin: Literal["auto", "multiplicity", "unpaired"] = Field(
        default=AUTO,
        description="What the spin key holds: the multiplicity 2S + 1, or the number of unpaired electrons 2S. "
        f"{_DECLARED.format('multiplicity')}",
    )

    @field_validator("energy", "length", "forces", "stress", "dipole", "quadrupole", "polarizability")
    @classmethod
    def _known_unit(cls, value: str | None, info: object) -> str | None:
        return check_unit(str(getattr(info, "field_name", "")), value)

    def declared(self, **found: Any) -> LabelUnits:
        """Return these units with what a file declares where the user left it open: `declared(energy="Ha")`."""
        return self.model_copy(update={name: value for name, value in found.items() if self._is_open(name)})

    def overruled(self, **found: Any) -> tuple[str, ...]:
        """Return one note for each declared unit that the user's own replaces by another."""
        lines = []
        for name, value in found.items():
            if not self._is_open(name) and getattr(self, name) != value:
                what = f"the file declares {value!r} as {name.replace('_', ' ')}"
                lines.append(f"{what}, the settings say {getattr(self, name)!r}: the settings are followed")
        return tuple(lines)

    def _is_open(self, name: str) -> bool:
        return getattr(self, name) in (AUTO, None)

    def settled(self, name: str) -> str:
        """Return a unit or sign, the internal one where nobody said another."""
        value = getattr(self, name)
        return INTERNAL[name] if value == AUTO else value

    @property
    def energy_factor(self) -> float:
        """Energy in the file times this is in eV."""
        return factor("energy", self.settled("energy"))

    @property
    def length_factor(self) -> float:
        """Length in the file times this is in Å."""
        return factor("length", self.settled("length"))

    @property
    def forces_factor(self) -> float:
        """Force in the file times this is in eV/Å."""
        if self.forces is None or self.forces == AUTO:
            return self.energy_factor / self.length_factor
        return factor("forces", self.forces)

    @property
    def stress_factor(self) -> float:
        """Stress in the file times this is in eV/Å^3, without the sign."""
        return factor("stress", self.settled("stress"))

    def factor_of(self, quantity: str) -> float:
        """Return the number that turns a label other than energy, forces and stress into internal units."""
        return (
            factor(quantity, self.settled(quantity)) if quantity in ("dipole", "quadrupole", "polarizability") else 1.0
        )
