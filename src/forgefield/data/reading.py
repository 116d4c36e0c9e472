"""How a source is read: format, names, units, signs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from forgefield.core.catalog import Catalog
from forgefield.core.errors import ForgeError
from forgefield.core.settings import Settings
from forgefield.data.label_names import LabelKeys, TargetKey
from forgefield.data.label_units import LabelUnits, check_unit

READERS = "forgefield.data.readers"
FORMAT_ALIASES = {"lmdb": "fairchem_lmdb", "xyz": "extxyz", "db": "ase_db", "traj": "ase_files"}
_KEYS = (
    *("energy", "forces", "stress", "charges", "spin_charges", "dipole", "quadrupole", "polarizability"),
    *("force_mask", "head", "charge", "multiplicity", "fidelity"),
)
_UNITS = ("energy", "length", "forces", "stress", "dipole", "quadrupole", "polarizability")
_SIGNS = ("stress_sign", "stress_quantity", "energy_per", "spin")


def _key(name: str) -> str:
    return LabelKeys.model_fields[name].description or ""


def _unit(name: str) -> str:
    return LabelUnits.model_fields[name].description or ""


class Reading(Settings):
    """What a file is, how its labels are named, and in which units they are."""

    format: str = Field(
        default="auto",
        description="File format: auto looks into the file; the names are those of `forgefield data info --formats`.",
    )
    select: str | None = Field(
        default=None, description="Which records of a database are read, in its own words: 'status=completed'."
    )
    on_error: Literal["raise", "skip"] = Field(
        default="raise",
        description="What happens to a structure that cannot be used. raise: an error. skip: it is left out; all are "
        "read once to find such, and their number and reasons are told.",
    )
    energy_key: str | None = Field(default="auto", description=_key("energy"))
    forces_key: str | None = Field(default="auto", description=_key("forces"))
    stress_key: str | None = Field(default="auto", description=_key("stress"))
    charges_key: str | None = Field(default="auto", description=_key("charges"))
    spin_charges_key: str | None = Field(default="auto", description=_key("spin_charges"))
    dipole_key: str | None = Field(default="auto", description=_key("dipole"))
    quadrupole_key: str | None = Field(default="auto", description=_key("quadrupole"))
    polarizability_key: str | None = Field(default="auto", description=_key("polarizability"))
    force_mask_key: str | None = Field(default=None, description=_key("force_mask"))
    charge_key: str | None = Field(default="auto", description=_key("charge"))
    multiplicity_key: str | None = Field(default="auto", description=_key("multiplicity"))
    fidelity_key: str | None = Field(default="auto", description=_key("fidelity"))
    targets: dict[str, TargetKey] = Field(
        default_factory=dict,
        description="Further labels of your own, by name: {gap: {key: band_gap, per: structure, components: 1, "
        "unit: eV}}; trained on with train.targets.",
    )
    base: dict[str, str] = Field(default_factory=dict, description=_key("base"))
    features: dict[str, str] = Field(default_factory=dict, description=_key("features"))
    head_key: str = Field(default="head", description=_key("head"))
    energy_unit: str = Field(default="auto", description=_unit("energy"))
    length_unit: str = Field(default="auto", description=_unit("length"))
    forces_unit: str | None = Field(default=None, description=_unit("forces"))
    stress_unit: str = Field(default="auto", description=_unit("stress"))
    dipole_unit: str = Field(default="auto", description=_unit("dipole"))
    quadrupole_unit: str = Field(default="auto", description=_unit("quadrupole"))
    polarizability_unit: str = Field(default="auto", description=_unit("polarizability"))
    stress_sign: Literal["auto", "ase", "vasp"] = Field(default="auto", description=_unit("stress_sign"))
    stress_quantity: Literal["auto", "stress", "virial"] = Field(default="auto", description=_unit("stress_quantity"))
    energy_per: Literal["auto", "structure", "atom"] = Field(default="auto", description=_unit("energy_per"))
    spin: Literal["auto", "multiplicity", "unpaired"] = Field(default="auto", description=_unit("spin"))

    charge: float | None = Field(
        default=None, description="Total charge of the structures that state none, e; for models that need one."
    )
    multiplicity: int | None = Field(
        default=None, ge=1, description="Spin multiplicity, 2S + 1, of the structures that state none."
    )

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        value = FORMAT_ALIASES.get(value, value)
        if value != "auto":
            try:
                Catalog(READERS).entry(value)
            except ForgeError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator(*(f"{name}_unit" for name in _UNITS))
    @classmethod
    def _known_unit(cls, value: str | None, info: Any) -> str | None:
        return check_unit(info.field_name.removesuffix("_unit"), value)

    @field_validator("targets", "base")
    @classmethod
    def _known_names(cls, value: Any, info: Any) -> Any:
        LabelKeys(**{info.field_name: value})
        return value

    @property
    def keys(self) -> LabelKeys:
        """The names of the labels."""
        named = {name: getattr(self, f"{name}_key") for name in _KEYS}
        return LabelKeys(**named, targets=self.targets, base=self.base, features=self.features)

    @property
    def units(self) -> LabelUnits:
        """The units of the files."""
        units = {name: getattr(self, f"{name}_unit") for name in _UNITS}
        return LabelUnits(**units, **{name: getattr(self, name) for name in _SIGNS})
