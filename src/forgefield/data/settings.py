"""The `data:` block of a run."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, field_validator

from forgefield.core.catalog import Catalog
from forgefield.core.elements import number
from forgefield.core.errors import ForgeError
from forgefield.core.settings import Settings
from forgefield.data.reader import LabelKeys, LabelUnits, TargetKey, check_unit

READERS = "forgefield.data.readers"
FORMAT_ALIASES = {"lmdb": "fairchem_lmdb", "xyz": "extxyz"}
E0_WORDS = ("auto", "isolated", "least_squares")
PATH_KEYS = (
    *("train", "val", "test", "lmdb", "indices_path", "e0"),
    *("train_indices.indices_path", "val_indices.indices_path", "test_indices.indices_path"),
)
"""Keys below `data:` that hold paths; a relative one means relative to the file it stands in."""


def _as_paths(value: Any) -> Any:
    if isinstance(value, (str, Path)):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_paths, json_schema_input_type=str | list[str])]
Energies = dict[str, float]


class Sampling(Settings):
    """Which part of a data set is used. The order is: take `indices_path`, shuffle, keep `max_samples`."""

    max_samples: int | None = Field(default=None, gt=0, description="Keep at most this many frames; null keeps all.")
    shuffle: bool = Field(
        default=False, description="Draw the frames in a random order that `seed` fixes; otherwise in file order."
    )
    seed: int = Field(default=0, ge=0, description="Seed of `shuffle`.")
    indices_path: Path | None = Field(
        default=None, description="JSON file with a list of frame numbers, counted from 0, to choose from."
    )


class DataSettings(Settings):
    """What is read, how its labels are named and in which units, and how it is split."""

    train: Paths = Field(default=(), description="Training data: a file, a folder of LMDB shards, or a list of them.")
    val: Paths = Field(
        default=(), description="Validation data; without it `val_fraction` of the training data is taken."
    )
    test: Paths = Field(default=(), description="Test data, evaluated after training.")
    lmdb: Paths = Field(
        default=(),
        validation_alias=AliasChoices("lmdb", "path", "src"),
        description="Data to evaluate or to predict, of any format (also called path or src).",
    )
    format: str = Field(
        default="auto",
        description="File format: auto (looks into the file), extxyz, or lmdb (fairchem, also a folder of shards).",
    )
    batch_size: Literal["auto"] | Annotated[int, Field(gt=0)] = Field(
        default="auto",
        description="Structures per batch when evaluating or predicting. auto: as many as measured speed and memory "
        "allow, see eval.memory_share; validation while training then takes 32.",
    )
    indices: tuple[int, ...] | None = Field(
        default=None,
        description="Frame numbers, counted from 0, of the data that the task works on; overrides all sampling.",
    )
    indices_path: Path | None = Field(
        default=None, description="JSON file with a list of frame numbers; ignored when `indices` is given."
    )
    train_indices: Sampling = Field(default=Sampling(), description="Which part of the training data is used.")
    val_indices: Sampling = Field(default=Sampling(), description="Which part of the validation data is used.")
    test_indices: Sampling = Field(default=Sampling(), description="Which part of the test data is used.")
    val_fraction: float = Field(
        default=0.1,
        ge=0.0,
        lt=1.0,
        description="Part of the training data kept for validation when `val` is not given.",
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of that split.")
    energy_key: str | None = Field(default="auto", description=LabelKeys.model_fields["energy"].description)
    forces_key: str | None = Field(default="auto", description=LabelKeys.model_fields["forces"].description)
    stress_key: str | None = Field(default="auto", description=LabelKeys.model_fields["stress"].description)
    charges_key: str | None = Field(default=None, description=LabelKeys.model_fields["charges"].description)
    spin_charges_key: str | None = Field(default=None, description=LabelKeys.model_fields["spin_charges"].description)
    dipole_key: str | None = Field(default=None, description=LabelKeys.model_fields["dipole"].description)
    force_mask_key: str | None = Field(default=None, description=LabelKeys.model_fields["force_mask"].description)
    targets: dict[str, TargetKey] = Field(
        default_factory=dict,
        description="Further labels of your own, by name: {gap: {key: band_gap, per: structure, components: 1, "
        "unit: eV}}; trained on with train.targets.",
    )
    head_key: str = Field(default="head", description=LabelKeys.model_fields["head"].description)
    energy_unit: str = Field(default="eV", description=LabelUnits.model_fields["energy"].description)
    length_unit: str = Field(default="Ang", description=LabelUnits.model_fields["length"].description)
    forces_unit: str | None = Field(default=None, description=LabelUnits.model_fields["forces"].description)
    stress_unit: str = Field(default="eV/Ang^3", description=LabelUnits.model_fields["stress"].description)
    dipole_unit: str = Field(default="e*Ang", description=LabelUnits.model_fields["dipole"].description)
    stress_sign: Literal["ase", "vasp"] = Field(
        default="ase", description=LabelUnits.model_fields["stress_sign"].description
    )
    stress_quantity: Literal["auto", "stress", "virial"] = Field(
        default="auto", description=LabelUnits.model_fields["stress_quantity"].description
    )
    e0: Literal["auto", "isolated", "least_squares"] | Energies | dict[str, Energies] | Path = Field(
        default="auto",
        description="Energy of each isolated atom. isolated: from frames of one atom in the training data; "
        "least_squares: fitted to the training energies; auto: isolated if there are such frames, else least_squares; "
        "or values in eV, {H: -13.6, O: -2042}, also per head; or a file: JSON of such values, or frames of one atom.",
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

    @field_validator("e0", mode="before")
    @classmethod
    def _known_e0(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): v for k, v in value.items()}
        if isinstance(value, str) and value not in E0_WORDS and not Path(value).suffix:
            near = difflib.get_close_matches(value, E0_WORDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{value!r} is not one of {', '.join(E0_WORDS)}, nor values, nor a file{hint}")
        return value

    @field_validator("e0")
    @classmethod
    def _known_elements(cls, value: Any) -> Any:
        if isinstance(value, dict):
            tables = [v for v in value.values() if isinstance(v, dict)]
            try:
                for name in (n for table in (tables or [value]) for n in table):
                    number(name)
            except ForgeError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("energy_unit", "length_unit", "forces_unit", "stress_unit", "dipole_unit")
    @classmethod
    def _known_unit(cls, value: str | None, info: Any) -> str | None:
        return check_unit(info.field_name.removesuffix("_unit"), value)

    @property
    def unmeasured_batch(self) -> int:
        """Structures per batch where nothing is measured: `batch_size`, or 32 with auto."""
        return 32 if self.batch_size == "auto" else self.batch_size

    @property
    def keys(self) -> LabelKeys:
        """The names of the labels."""
        names = ("energy", "forces", "stress", "charges", "spin_charges", "dipole", "force_mask", "head")
        return LabelKeys(**{name: getattr(self, f"{name}_key") for name in names}, targets=self.targets)

    @property
    def units(self) -> LabelUnits:
        """The units of the files."""
        return LabelUnits(
            energy=self.energy_unit,
            length=self.length_unit,
            forces=self.forces_unit,
            stress=self.stress_unit,
            dipole=self.dipole_unit,
            stress_sign=self.stress_sign,
            stress_quantity=self.stress_quantity,
        )
