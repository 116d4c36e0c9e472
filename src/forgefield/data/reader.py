"""What every file format offers, and the settings that all of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from forgefield.core.errors import ForgeError
from forgefield.core.quantities import DERIVED, QUANTITIES, Quantity
from forgefield.core.settings import Settings
from forgefield.core.structure import Structure
from forgefield.core.units import factor

AUTO = "auto"


class TargetKey(Settings):
    """A label of the user's own."""

    key: str = Field(description="Its name in the file.")
    per: Literal["structure", "atom"] = Field(description="What has one: each structure or each atom.")
    components: int = Field(default=1, ge=1, description="Numbers of each.")
    unit: str = Field(default="", description="Unit, for reports; it is not converted.")

    def quantity(self, name: str) -> Quantity:
        """Return what it is, as in the table of quantities."""
        shape = () if self.components == 1 else (self.components,)
        return Quantity(name, self.unit, self.per, shape, "a target of the user's own", "total")


class LabelKeys(Settings):
    """Names under which a file holds its labels."""

    energy: str | None = Field(
        default=AUTO,
        description="Name of the total energy in the file. 'auto' takes the one usual name that is present and "
        "refuses two that differ; null reads no energy.",
    )
    forces: str | None = Field(
        default=AUTO, description="Name of the forces in the file: 'auto', a name, or null to read none."
    )
    stress: str | None = Field(
        default=AUTO, description="Name of the stress or virial in the file: 'auto', a name, or null to read none."
    )
    charges: str | None = Field(default=None, description="Name of the atoms' partial charges, e; null reads none.")
    spin_charges: str | None = Field(
        default=None, description="Name of the atoms' unpaired electrons (alpha minus beta); null reads none."
    )
    dipole: str | None = Field(default=None, description="Name of the electric dipole; null reads none.")
    force_mask: str | None = Field(
        default=None,
        description="Name of a column that is 0 (or F) for atoms whose force label does not count; null = all count.",
    )
    targets: dict[str, TargetKey] = Field(
        default_factory=dict, description="Further labels by name: {gap: {key: band_gap, per: structure}}."
    )
    head: str = Field(
        default="head", description="Name of the text in the file that says which model head a frame trains."
    )

    @field_validator("targets")
    @classmethod
    def _new_names(cls, value: dict[str, TargetKey]) -> dict[str, TargetKey]:
        for name in value.keys() & {*QUANTITIES, *DERIVED}:
            raise ValueError(f"{name} is known already: give data.{name}_key")
        return value

    @property
    def declared(self) -> dict[str, Quantity]:
        """What the further labels are."""
        return {name: target.quantity(name) for name, target in self.targets.items()}

    def of_others(self) -> dict[str, str]:
        """Names in the file of all labels beside energy, forces and stress that are asked for."""
        known = {name: getattr(self, name) for name in ("charges", "spin_charges", "dipole")}
        return {**{k: v for k, v in known.items() if v is not None}, **{k: t.key for k, t in self.targets.items()}}


def check_unit(quantity: str, unit: str | None) -> str | None:
    """Return the unit if it is known, in the way pydantic validators need it.

    Raises:
        ValueError: it is not known.
    """
    if unit is not None:
        try:
            factor(quantity, unit)
        except ForgeError as error:
            raise ValueError(str(error)) from None
    return unit


class LabelUnits(Settings):
    """Units and signs of a file; all is turned into eV, Å, eV/Å and eV/Å^3 when it is read."""

    energy: str = Field(default="eV", description="Unit of energies, and of virials: eV, meV, Ha, kcal/mol, kJ/mol.")
    length: str = Field(default="Ang", description="Unit of positions and cell: Ang, bohr, nm.")
    forces: str | None = Field(
        default=None, description="Unit of forces, for example 'eV/Ang'; null = energy unit per length unit."
    )
    stress: str = Field(default="eV/Ang^3", description="Unit of stresses: eV/Ang^3, GPa, kbar.")
    dipole: str = Field(default="e*Ang", description="Unit of dipoles: e*Ang, e*bohr, Debye.")
    stress_sign: Literal["ase", "vasp"] = Field(
        default="ase",
        description="'ase': a positive stress is tensile, +dE/dstrain/V, and virial = -stress*V. "
        "'vasp': both signs are opposite.",
    )
    stress_quantity: Literal["auto", "stress", "virial"] = Field(
        default=AUTO,
        description="What the stress key holds. A virial is an energy: stress = -virial/V. "
        "'auto' goes by the name of the key.",
    )

    @field_validator("energy", "length", "forces", "stress", "dipole")
    @classmethod
    def _known_unit(cls, value: str | None, info: object) -> str | None:
        return check_unit(str(getattr(info, "field_name", "")), value)

    @property
    def energy_factor(self) -> float:
        """Energy in the file times this is in eV."""
        return factor("energy", self.energy)

    @property
    def length_factor(self) -> float:
        """Length in the file times this is in Å."""
        return factor("length", self.length)

    @property
    def forces_factor(self) -> float:
        """Force in the file times this is in eV/Å."""
        if self.forces is None:
            return self.energy_factor / self.length_factor
        return factor("forces", self.forces)

    @property
    def dipole_factor(self) -> float:
        """Dipole in the file times this is in e Å."""
        return factor("dipole", self.dipole)

    @property
    def stress_factor(self) -> float:
        """Stress in the file times this is in eV/Å^3, without the sign."""
        return factor("stress", self.stress)


class ReaderSettings(Settings):
    """Settings that every format has."""

    keys: LabelKeys = Field(default=LabelKeys(), description="Names of the labels in the file.")
    units: LabelUnits = Field(default=LabelUnits(), description="Units and signs of the file.")


class Frames(ABC):
    """The structures of one source, in their order.

    Args:
        source: the file or folder, for messages.
        chosen: the key that each label was read from; None = that label is not in the file.
        others: further names in the file that a label might have been meant to have.
        notes: what the user should know about this source.
    """

    def __init__(
        self,
        source: str,
        chosen: dict[str, str | None],
        others: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.source, self.chosen = source, dict(chosen)
        self.others, self.notes = tuple(others), tuple(notes)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Structure: ...


class ListFrames(Frames):
    """Structures that are all in memory."""

    def __init__(
        self,
        structures: Sequence[Structure],
        source: str = "memory",
        chosen: dict[str, str | None] | None = None,
        others: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(source, chosen or {}, others, notes)
        self._structures = list(structures)

    def __len__(self) -> int:
        return len(self._structures)

    def __getitem__(self, index: int) -> Structure:
        return self._structures[index]


class Reader(ABC):
    """One file format."""

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return whether the contents of `path` (not its name) look like this format."""

    @abstractmethod
    def open(self, path: Path) -> Frames:
        """Return the structures of a file or folder.

        Raises:
            DataError: it is empty, damaged, or its labels cannot be told apart.
        """
