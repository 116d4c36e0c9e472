"""Under which names a file holds its labels."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from forgefield.core.quantities import DERIVED, QUANTITIES, Quantity, Rotates
from forgefield.core.settings import Settings

AUTO = "auto"
_NAMED = "'auto' takes it where the format has a name of its own for it, otherwise name it; null reads none."


class TargetKey(Settings):
    """A label of the user's own."""

    key: str = Field(description="Its name in the file.")
    per: Literal["structure", "atom"] = Field(description="What has one: each structure or each atom.")
    components: int = Field(default=1, ge=1, description="Numbers of each.")
    rotates: Rotates = Field(
        default="not",
        description="When the structure is turned they do not change (not), or turn as a vector (3 components) or a "
        "tensor (9: xx xy xz yx ...).",
    )
    symmetric: bool = Field(
        default=True,
        description="Whether a tensor is symmetric; labels that are not are refused then. false: its antisymmetric "
        "part is learned too (Born effective charges, NMR shieldings).",
    )
    unit: str = Field(default="", description="Unit, for reports; it is not converted.")
    threshold: float | None = Field(
        default=None,
        description="Makes two classes of the numbers: 1 above it, 0 up to it. The model then gives the probability "
        "of 1. null: the numbers themselves are learned.",
    )

    def quantity(self, name: str) -> Quantity:
        """Return what it is, as in the table of quantities."""
        shape = () if self.components == 1 else (self.components,)
        if self.rotates == "tensor":
            shape = (3, 3)
        meaning, kind = "a target of the user's own", "number"
        if self.threshold is not None:
            meaning, kind = f"1 where {self.key} is above {self.threshold:g}, else 0", "class"
        turning = (self.rotates, self.symmetric)
        return Quantity(name, self.unit, self.per, shape, meaning, "total", "", kind, *turning)

    @classmethod
    def of(cls, quantity: Quantity) -> TargetKey:
        """Return what reads a label that was written under its own name."""
        threshold = 0.5 if quantity.kind == "class" else None
        turning = {"rotates": quantity.rotates, "symmetric": quantity.symmetric}
        more = {"components": quantity.width, "unit": quantity.unit, "threshold": threshold, **turning}
        return cls.model_validate({"key": quantity.name, "per": quantity.per, **more})

    @model_validator(mode="after")
    def _consistent(self) -> TargetKey:
        wanted = {"not": self.components, "vector": 3, "tensor": 9}[self.rotates]
        if self.components != wanted:
            raise ValueError(f"a {self.rotates} has {wanted} components: set components: {wanted}")
        if not self.symmetric and self.rotates != "tensor":
            raise ValueError("symmetric: false is said of tensors: set rotates: tensor and components: 9, or remove it")
        if self.threshold is not None and (self.components != 1 or self.unit):
            raise ValueError("threshold makes classes of one number without unit: remove components and unit")
        return self


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
    charges: str | None = Field(default=AUTO, description=f"Name of the atoms' partial charges, e. {_NAMED}")
    spin_charges: str | None = Field(
        default=AUTO, description=f"Name of the atoms' unpaired electrons (alpha minus beta). {_NAMED}"
    )
    dipole: str | None = Field(default=AUTO, description=f"Name of the electric dipole. {_NAMED}")
    quadrupole: str | None = Field(default=AUTO, description=f"Name of the electric quadrupole. {_NAMED}")
    polarizability: str | None = Field(default=AUTO, description=f"Name of the polarizability. {_NAMED}")
    force_mask: str | None = Field(
        default=None,
        description="Name of a column that is 0 (or F) for atoms whose force label does not count; null = all count.",
    )
    targets: dict[str, TargetKey] = Field(
        default_factory=dict, description="Further labels by name: {gap: {key: band_gap, per: structure}}."
    )
    base: dict[str, str] = Field(
        default_factory=dict,
        description="Labels of a cheaper level that the model is to correct, and their names in the file: "
        "{energy: xtb_energy, forces: xtb_forces}. Units and signs are those of the labels.",
    )
    features: dict[str, str] = Field(
        default_factory=dict,
        description="Further inputs and their names in the file: {temperature: T}; numbers of the structure or of "
        "its atoms.",
    )
    head: str = Field(
        default="head", description="Name of the text in the file that says which model head a frame trains."
    )
    charge: str | None = Field(
        default=AUTO,
        description="Name of the total charge, e. 'auto' knows charge and total_charge; null reads none.",
    )
    multiplicity: str | None = Field(
        default=AUTO,
        description="Name of the spin. 'auto' knows multiplicity and spin_multiplicity; null reads none. See `spin`.",
    )
    fidelity: str | None = Field(
        default=AUTO,
        description="Name of the text that says the level of theory of a frame. 'auto' knows fidelity; null: none.",
    )

    @field_validator("targets")
    @classmethod
    def _new_names(cls, value: dict[str, TargetKey]) -> dict[str, TargetKey]:
        for name in value.keys() & {*QUANTITIES, *DERIVED}:
            raise ValueError(f"{name} is known already: give data.{name}_key")
        return value

    @field_validator("base")
    @classmethod
    def _known_labels(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value.keys() - QUANTITIES.keys():
            raise ValueError(f"{name} is no label; known: {', '.join(QUANTITIES)}")
        return value

    @property
    def declared(self) -> dict[str, Quantity]:
        """What the further labels are."""
        return {name: target.quantity(name) for name, target in self.targets.items()}
