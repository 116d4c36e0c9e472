"""The `data:` block of a run."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, field_validator

from forgefield.core.elements import number
from forgefield.core.errors import ForgeError
from forgefield.core.settings import Settings
from forgefield.data.doctor.rules import check_names
from forgefield.data.reading import Reading
from forgefield.data.sources import Sources

E0_WORDS = ("auto", "isolated", "least_squares")
PATH_KEYS = (
    *("train", "val", "test", "lmdb", "indices_path", "e0"),
    *("train_indices.indices_path", "val_indices.indices_path", "test_indices.indices_path"),
)
"""Keys below `data:` that hold paths; a relative one means relative to the file it stands in."""


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


class DataSettings(Reading):
    """What is read, how its labels are named and in which units, and how it is split."""

    train: Sources = Field(
        default=(),
        description="Training data: a file or folder, or a list of them; one with names, units, fidelity, head "
        "or weight of its own is written as a mapping: {path: b.db, energy_unit: Ha, fidelity: dft, weight: 0.5}.",
    )
    val: Sources = Field(
        default=(), description="Validation data; without it `val_fraction` of the training data is taken."
    )
    test: Sources = Field(default=(), description="Test data, evaluated after training.")
    lmdb: Sources = Field(
        default=(),
        validation_alias=AliasChoices("lmdb", "path", "src"),
        description="Data to evaluate or to predict, of any format (also called path or src).",
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
    accept: tuple[str, ...] = Field(
        default=(),
        description="Severe findings of `forgefield data doctor` that do not stop training, by name: "
        "[leaked_duplicates]. Each stands in run.json and in the report.",
    )
    e0: Literal["auto", "isolated", "least_squares"] | Energies | dict[str, Energies] | Path = Field(
        default="auto",
        description="Energy of each isolated atom. isolated: from frames of one atom in the training data; "
        "least_squares: fitted to the training energies; auto: isolated if there are such frames, else least_squares; "
        "or values in eV, {H: -13.6, O: -2042}, also per head; or a file: JSON of such values, or frames of one atom.",
    )

    @field_validator("accept")
    @classmethod
    def _known_findings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_names(value)
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

    @property
    def unmeasured_batch(self) -> int:
        """Structures per batch where nothing is measured: `batch_size`, or 32 with auto."""
        return 32 if self.batch_size == "auto" else self.batch_size
