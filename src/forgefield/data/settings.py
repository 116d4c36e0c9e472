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
from forgefield.data.split_settings import SplitSettings, as_split

E0_WORDS = ("auto", "isolated", "least_squares")
PATH_KEYS = (
    *("train", "val", "test", "lmdb", "indices_path", "e0", "split"),
    *("train_indices.indices_path", "val_indices.indices_path", "test_indices.indices_path"),
)
"""Keys below `data:` that hold paths; a relative one means relative to the file it stands in."""


Percent = Annotated[float, Field(ge=0.0, le=100.0)]
Energies = dict[str, float | Literal["fit"]]


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


class LevelSettings(Settings):
    """`data.fidelities`: what is true of the labels of one level of theory."""

    dispersion: Literal["included", "absent"] = Field(
        description="Whether the labels include dispersion, so that it is never counted twice."
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
    split: SplitSettings | Path = Field(
        default=SplitSettings(),
        validate_default=False,
        description="How that part is chosen: auto (as the data's own split.json says, where they bring one; else "
        "trajectories in blocks or whole, all else at random), random, "
        "blocks, a block {method: groups, by: composition}, or a file that `forgefield data split` or an earlier run "
        "wrote (split.json).",
    )
    sampling: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0.0)]] | None = Field(
        default=None,
        description="How often the sources of `train` are drawn: balanced (each source equally often), or a weight for "
        "each by name (fidelity, file name or path): {dft: 2, cheap: 1} makes two of three draws come from dft. "
        "null: every structure once per epoch. Batches hold the shares as evenly as they can.",
    )
    draws_per_epoch: int | None = Field(
        default=None,
        ge=1,
        description="Structures drawn in an epoch; null: as many as there are. Without `sampling` an epoch is then a "
        "part of the data, or several passes, and goes on where the last one ended.",
    )
    replacement: bool = Field(
        default=False,
        description="Draw with replacement: each draw is independent, and some structures of an epoch come twice. "
        "false: none of a source comes again before all others of it have come, across epochs.",
    )
    accept: tuple[str, ...] = Field(
        default=(),
        description="Severe findings of `forgefield data doctor` that do not stop training, by name: "
        "[leaked_duplicates]. Each stands in run.json and in the report.",
    )
    fidelities: dict[str, LevelSettings] = Field(
        default_factory=dict,
        description="What is true of the labels of each level of theory, by name (default: of data that name none): "
        " {wb97m: {dispersion: included}}. Needed where the model or the export adds dispersion.",
    )
    e0: Literal["auto", "isolated", "least_squares"] | Energies | dict[str, Energies] | Path = Field(
        default="auto",
        description="Energy of each isolated atom. isolated: from frames of one atom in the training data; "
        "least_squares: fitted to the training energies; auto: isolated if there are such frames, else least_squares; "
        "or values in eV, {H: -13.6, O: -2042}, also per head, where {H: -13.6, O: fit} fits the rest; "
        "or a file: YAML or JSON of such values (`forgefield data sae`), or frames of one atom.",
    )
    e0_percentiles: tuple[Percent, Percent] | None = Field(
        default=None,
        description="Leave the structures whose residuals lie outside of these percentiles out of a second least "
        "squares fit of e0: [2, 98] keeps outliers away. null: all structures count.",
    )

    @field_validator("e0_percentiles")
    @classmethod
    def _trims_a_fit(cls, value: tuple[float, float] | None, info: Any) -> tuple[float, float] | None:
        e0 = info.data.get("e0")
        if value is not None and value[0] >= value[1]:
            raise ValueError("the first must be below the second: [2, 98]")
        if value is not None and (e0 == "isolated" or (isinstance(e0, dict) and "fit" not in str(e0))):
            raise ValueError("has an effect where energies are fitted only (e0: least_squares or auto); remove it")
        return value

    @field_validator("split", mode="before")
    @classmethod
    def _word_or_file(cls, value: Any) -> Any:
        return as_split(value)

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
